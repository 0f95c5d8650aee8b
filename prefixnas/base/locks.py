"""Locks that end with their process, whatever ended that one."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path


def try_lock(path: Path) -> TextIOWrapper | None:
    """Take a lock that ends with this process; None: another one has it."""
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the study against other processes of this folder, for a moment."""
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
