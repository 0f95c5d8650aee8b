"""Reading mutated files in processes of their own: what ends one of them is a fault like others."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.outcomes import Outcome
from tests.forked import SERVER
from tests.plots import left_out

FOUND = Path("build/faults")
"""Where files are kept that were a fault."""


def names(folder: Path) -> list[str]:
    """Return the names of all readers."""
    found: list[str] = _in_a_process(_names, folder)
    return found


def fuzz_apart(folder: Path, name: str, examples: int) -> Counter[Outcome]:
    """Read mutated files of one kind."""
    tally: Counter[Outcome] = _in_a_process(_fuzz, folder, name, examples)
    return tally


def _in_a_process(work: Callable[..., Any], *given: Any) -> Any:
    ours, theirs = SERVER.Pipe()
    process = SERVER.Process(target=_send, args=(theirs, work, given))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        process.join()
        print(f"{given}: its process ended with {process.exitcode}", flush=True)
        return Counter({Outcome.TRACEBACK: 1})


def _send(pipe: Any, work: Callable[..., Any], given: Any) -> None:
    import torch

    torch.set_num_threads(1)
    with left_out():
        pipe.send(work(*given))


def _names(folder: Path) -> list[str]:
    from tests.faults.readers import readers

    with tempfile.TemporaryDirectory() as copied:
        return [reader.name for reader in readers(_copy(folder, Path(copied)))]


def _fuzz(folder: Path, name: str, examples: int) -> Counter[Outcome]:
    from tests.faults.fuzz import fuzz
    from tests.faults.readers import readers

    with tempfile.TemporaryDirectory() as copied:
        found = {reader.name: reader for reader in readers(_copy(folder, Path(copied)))}
        return fuzz(found[name], examples, 0, FOUND)


def _copy(folder: Path, to: Path) -> Path:
    for name in ("llama", "mood", "kept"):
        shutil.copytree(folder / name, to / name)
    shutil.copy(folder / "study.yaml", to)
    return to
