"""What NNI starts for a trial: leases GPUs, starts the trial, ends its whole process tree with it.

NNI ends a trial by a signal to one process, five seconds later by SIGKILL, and leaves everything
that this process started behind. So there are two processes above the trial, the launcher and the
keeper. Each adopts what is orphaned below it (a subreaper, prctl(2)) and ends it all when the trial
is over, however it came to be over; if one of the two is killed with -9, the other one does it.
The manager's death ends nothing: a running trial finishes.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import Popen
from typing import Any

import psutil

from prefixnas.base.console import guarded
from prefixnas.base.processes import share_of_threads
from prefixnas.experiments.lease import Demand, acquire, default_folder
from prefixnas.experiments.nni.processes import end, lives

GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL; NNI kills the launcher itself after five."""

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def launch(command: Sequence[str], variables: Mapping[str, str]) -> int:
    """Run a command as a tree that ends as a whole; return its exit code.

    Args:
        command: What to start.
        variables: Its environment.

    Returns:
        The command's exit code, 128 + N if signal N ended it; minus the signal's number if this
        process was told to end.
    """
    _adopt_orphans()
    told = _Told()
    launcher = os.getpid()
    keeper = os.fork()
    if keeper == 0:
        code = 1
        try:
            code = _keep(command, variables, launcher)
        finally:
            os._exit(code)
    code = _wait(keeper, told, lambda number: os.kill(keeper, number))
    end_tree()  # what is left if the keeper was killed
    return code if told.signal is None else -told.signal


def _keep(command: Sequence[str], variables: Mapping[str, str], launcher: int) -> int:
    """Start the command and end everything below it, also when the launcher is gone."""
    os.setsid()
    told = _Told()
    _adopt_orphans()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != launcher:  # it died before the line above
        return 1
    trial = Popen(command, env=dict(variables), close_fds=False)  # a lease is inherited
    code = _wait(trial.pid, told, lambda _: end_tree())
    end_tree()
    return code


class _Told:
    """Remembers the first signal that asked to end."""

    def __init__(self) -> None:
        self.signal: int | None = None
        for number in _SIGNALS:
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: object) -> None:
        self.signal = self.signal or number


def _wait(child: int, told: _Told, stop: Callable[[int], None]) -> int:
    """Wait for one child, reap adopted ones on the way; call `stop` once a signal came.

    Returns:
        The child's exit code, 128 + N if signal N ended it.
    """
    stopped = False
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        if told.signal is not None and not stopped:
            stopped = True
            with suppress(ProcessLookupError):
                stop(told.signal)
            continue
        if pid == 0:
            time.sleep(0.02)


def end_tree() -> None:
    """End all processes below this one: SIGTERM, then SIGKILL."""
    end(lambda: filter(lives, psutil.Process().children(recursive=True)), GRACE)


def _adopt_orphans() -> None:
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def main(argv: Sequence[str]) -> int:
    """Run the trial that NNI's environment variables and the settings' file describe."""
    settings: dict[str, Any] = json.loads(Path(argv[0]).read_text(encoding="utf-8"))
    demand = Demand(settings["gpus"] or 0, settings["share"], tuple(settings["indices"]))
    ended = _Told()
    folder = Path(settings["leases"] or default_folder())
    lease = acquire(folder, demand, give_up=lambda: ended.signal is not None)
    if lease is None:
        assert ended.signal is not None
        return -ended.signal
    variables = {**os.environ, **share_of_threads(settings.get("concurrency", 1))}
    if settings["gpus"] is not None:  # nothing said: the GPUs' visibility is left as it is
        variables |= lease.environment()
    return launch([*settings["command"], argv[0]], variables)


if __name__ == "__main__":
    code = guarded(main, None)
    if code < 0:  # so that NNI sees a trial that was ended, not one that failed
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)
