"""Flags that several commands have: where a trained model is computed, and on which base."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def add_adapter(parser: ArgumentParser, device: str = "auto") -> None:
    """Add the run, and how its model is loaded; `loading` reads the latter."""
    parser.add_argument("adapter", type=Path, metavar="RUN", help="run directory or adapter folder")
    shown = "the accelerator, or the CPU where there is none" if device == "auto" else device
    parser.add_argument(
        "--device", default=device, help=f"cpu, cuda, cuda:1 ... (default: {shown})"
    )
    parser.add_argument(
        "--dtype", default="auto", help="auto, float32, bfloat16, float16 (default: auto)"
    )
    parser.add_argument(
        "--model", help="the base model, where it is no longer where the run was trained"
    )


def loading(args: Namespace) -> Mapping[str, Any]:
    """Return what was said of loading, as `peml.load` takes it."""
    return {"device": args.device, "dtype": args.dtype, "model": args.model}
