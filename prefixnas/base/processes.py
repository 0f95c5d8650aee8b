"""Processes that belong together: how they start, their share of the cores, and their end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from prefixnas.base.locks import Lock

THREADS = "OMP_NUM_THREADS"
SHARE = "PREFIXNAS_SHARE_OF_THREADS"
"""Holds what `share_of_threads` gave, which tells it from what a user has set."""


class Child(subprocess.Popen[bytes]):
    """A module of this project as a process of its own, which ends with this one.

    The module calls `end_with_parent`: nobody but this object holds the other end of its standard
    input, which closes when this process ends, whatever ended it.

    Args:
        module: What is run, as by `python -m`.
        arguments: Its arguments.
        log: Where its output goes, behind what is there.
        environment: Variables beside those of this process.
        first_line: What it reads first on its standard input.
        lock: A lock that it holds, too.
        leased: Whether it inherits what was opened to be inherited, such as a lease of GPUs.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
        *,
        first_line: bytes = b"",
        lock: Lock | None = None,
        leased: bool = False,
    ) -> None:
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            super().__init__(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                start_new_session=True,  # Ctrl-C is for the process that the user started
                close_fds=not leased,
                pass_fds=() if lock is None else (lock.descriptor,),
            )
        assert self.stdin is not None
        if first_line:
            with suppress(BrokenPipeError):
                self.stdin.write(first_line + b"\n")
                self.stdin.flush()

    def error(self) -> str:
        """Return the line that says what went wrong with a process that has ended."""
        code = self.wait()
        if code < 0:
            return f"ended by {signal.Signals(-code).name}"
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        filled = [line.strip() for line in lines if line.strip()]
        errors = [line.removeprefix("error: ") for line in filled if line.startswith("error: ")]
        return (errors or filled or [f"exit code {code}"])[-1]

    def stop(self) -> None:
        """End it with everything that it started."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self.wait()
        assert self.stdin is not None
        with suppress(BrokenPipeError):
            self.stdin.close()


def end_with_parent() -> None:
    """End this process as soon as its standard input closes; see `Child`."""

    def watch() -> None:
        os.read(0, 1)  # unbuffered: a thread in the buffer would stop the interpreter from ending
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def end_when_orphaned() -> None:
    """End this process when the one that started it is gone, whatever that one is."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def first_line_of_input() -> bytes:
    """Read a line of standard input, unbuffered; end this process if there is none."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            os._exit(1)
        line += byte
    return line


def share_of_threads(jobs: int) -> dict[str, str]:
    """Return the environment that gives each of several trainings its share of the cores.

    Whatever starts several at once asks here: runs of a comparison, workers of a study, trials
    under NNI, processes of one run. A share is divided further by what is started within it; what
    the user has set stays, and a single training takes what it takes by itself.
    """
    given = os.environ.get(THREADS)
    if jobs == 1 or (given is not None and given != os.environ.get(SHARE)):
        return {}
    if given is not None and given.isdecimal():
        cores: int | None = int(given)
    elif hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count()
    each = str(max(1, (cores or 1) // jobs))
    return {THREADS: each, SHARE: each}


def peak_memory() -> dict[str, float | None]:
    """Return the peak memory of this process and of its accelerator, in bytes."""
    import resource

    import torch

    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    used = torch.cuda.is_available()
    return {
        "peak_memory": peak,
        "peak_device_memory": torch.cuda.max_memory_allocated() if used else None,
    }
