"""The processes of an experiment: found by a variable that all of them inherit, and ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import psutil

MARK = "PREFIXNAS_EXPERIMENT"
"""The variable; its value is the experiment's folder."""

_ROLE = "SDK_PROCESS"
"""Set by NNI in the environment of its tuner."""


def processes_of(folder: Path, *, tuner: bool = False) -> list[psutil.Process]:
    """Return the processes that an experiment started, directly or not.

    Args:
        folder: The experiment's.
        tuner: Only the tuner's, whichever manager they belonged to.
    """
    found = []
    for process in psutil.process_iter():
        try:
            variables = process.environ()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        mine = variables.get(MARK) == str(folder) and lives(process)
        if mine and (not tuner or variables.get(_ROLE) == "dispatcher"):
            found.append(process)
    return found


def same_process(pid: int, created: float) -> psutil.Process | None:
    """Return the process of that number, unless the number was given to another one since."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        if process.create_time() == created and lives(process):
            return process
    return None


def lives(process: psutil.Process) -> bool:
    """Tell whether a process has not ended; one that nobody has waited for yet has."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def end(find: Callable[[], Iterable[psutil.Process]], grace: float = 5.0) -> int:
    """End processes: SIGTERM, after `grace` seconds SIGKILL, until there are none.

    Args:
        find: Looks for them; asked again, as they may start others meanwhile.
        grace: Seconds that they get.

    Returns:
        How many there were.
    """
    seen: set[int] = set()
    deadline = time.monotonic() + grace
    while left := list(find()):
        late = time.monotonic() > deadline
        for process in left:
            try:
                if late:
                    process.kill()
                elif process.pid not in seen:
                    process.terminate()
            except psutil.NoSuchProcess:
                continue
            seen.add(process.pid)
        time.sleep(0.05)
    return len(seen)
