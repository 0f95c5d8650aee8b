"""Which device a process computes on, and how precisely."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from accelerate import PartialState

from prefixnas.base.errors import UserError, brief, unknown
from prefixnas.run.ranks import launched

ASKED = "ACCELERATE_MIXED_PRECISION"
"""What `accelerate launch --mixed_precision` sets."""


def device_of_rank() -> torch.device:
    """Return the device of this process: a GPU of its own where there are GPUs."""
    asked = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    cpu = asked or (launched() > 1 and not torch.cuda.is_available())
    device: torch.device = PartialState(cpu=cpu).device
    return device


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """Return a device that is there; `auto` is the accelerator, or the CPU where there is none.

    Raises:
        UserError: There is no such device; names those that there are.
    """
    there = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if device == "auto":
        return torch.device("cpu") if there is None else there
    count = 0 if there is None else torch.accelerator.device_count()
    known = ["cpu"] if there is None else ["cpu", *(f"{there.type}:{n}" for n in range(count))]
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise unknown("device", str(device), ["auto", *known]) from error
    if found.type != "cpu" and (
        there is None or found.type != there.type or (found.index or 0) >= count
    ):
        allowed = ", ".join(["auto", *known])
        raise UserError(f"device {brief(str(device))} is not there (allowed: {allowed})")
    return found


def autocast(precision: str, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    """Return a context for the model's passes.

    Args:
        precision: "no", "bf16", or "auto": what `accelerate launch` was asked for, else bf16 on
            GPUs that have it and "no" anywhere else.
        device: Where the passes run.

    Raises:
        UserError: `accelerate launch` was asked for a precision that needs a scaled loss.
    """
    asked = os.environ.get(ASKED, "no")
    if precision == "auto" and asked not in ("no", "bf16"):
        raise UserError(
            f"accelerate's mixed precision {asked!r} is not supported (allowed: bf16, no)"
        )
    if precision == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported()
        precision = "bf16" if fast or asked == "bf16" else "no"
    if precision == "no":
        return nullcontext
    return partial(torch.autocast, device.type, dtype=torch.bfloat16)


def isolated_random(device: torch.device) -> AbstractContextManager[None]:
    """Random numbers drawn inside leave the caller's random streams where they are."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
