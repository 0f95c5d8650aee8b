"""Locks on files, which end with the processes that hold them, whatever ended those."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from prefixnas.base.errors import UserError

LOCK = ".lock"
"""Name of the lock in a folder that one process at a time works on."""

POLL = 0.1
"""Seconds between two tries to get a lock."""


class Lock(AbstractContextManager["Lock", None]):
    """A lock that this process holds, and every process that inherits its descriptor.

    Args:
        descriptor: Of the locked file.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def release(self) -> None:
        """Let go; it stays with those that inherited it."""
        os.close(self.descriptor)

    def __exit__(self, *error: object) -> None:
        self.release()


def try_lock(path: Path, *, shared: bool = False, inherited: bool = False) -> Lock | None:
    """Take a lock; None: another process has it.

    Args:
        path: The file, made if missing; or a folder.
        shared: Together with others that take it so.
        inherited: Whether processes that are started meanwhile hold it, too.
    """
    descriptor = _open(path, inherited)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return Lock(descriptor)


def wait_for_lock(path: Path) -> Lock:
    """Take a lock as soon as it is free; the file is made if missing."""
    descriptor = _open(path, inherited=False)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return Lock(descriptor)


def _open(path: Path, inherited: bool) -> int:
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
    descriptor = os.open(path, flags, 0o600)
    os.set_inheritable(descriptor, inherited)
    return descriptor


@contextmanager
def alone(folder: Path, doing: str, seconds: float = 0.0) -> Iterator[Lock]:
    """Hold a folder against other processes.

    Args:
        folder: The folder, which exists.
        doing: What this one does there, for the others' message ("is comparing").
        seconds: How long to wait until processes that were killed have ended.

    Raises:
        UserError: Another process holds it, which the message names, or it cannot be written.
    """
    deadline, path = time.monotonic() + seconds, folder / LOCK
    while (lock := try_lock(path)) is None:
        if time.monotonic() > deadline:
            holder = path.read_text(encoding="utf-8").strip() or f"another process {doing}"
            raise UserError(f"{folder}: {holder} there already; wait for its end, or end it")
        time.sleep(POLL)
    with lock:
        try:
            os.ftruncate(lock.descriptor, 0)
            os.write(lock.descriptor, f"process {os.getpid()} {doing}\n".encode())
        except OSError as error:
            raise UserError(f"{path}: cannot be written: {error.strerror}") from error
        yield lock
