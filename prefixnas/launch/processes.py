"""Starting one run as several processes on this machine, with torch's own launcher."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefixnas.base.console import Terminated
from prefixnas.base.errors import RunLost, UserError
from prefixnas.base.processes import share_of_threads

LOOPBACK = {"linux": "lo", "darwin": "lo0"}
"""Name of the loopback interface: the ranks talk there and nowhere else."""

POLL, GRACE = 0.1, 10
"""Seconds between two looks at the processes, and from SIGTERM to SIGKILL."""


def launch(command: Sequence[str], processes: int, watch: Callable[[], None]) -> None:
    """Run a command as several processes that train together; end all of them if one fails.

    They find each other through a file, talk over the loopback interface, and know their places by
    the variables that torchrun sets, too (RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE). What
    they print is not shown, but for what rank 0 writes to stderr, at the end.

    Args:
        command: The program and its arguments; it calls `prefixnas.run.ranks.join`.
        processes: How many.
        watch: Called all the time; what it raises ends the processes.

    Raises:
        UserError: More processes than GPUs, or what the processes found wrong.
        RunLost: A process was killed, or failed; says which.
        KeyboardInterrupt: This process was told to end.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std, start_processes
    from torch.distributed.elastic.multiprocessing.api import SignalException

    from prefixnas.run.ranks import STORE, check_devices

    check_devices(processes)
    with tempfile.TemporaryDirectory() as folder, _as_before():
        variables = {**_defaults(processes), STORE: str(Path(folder) / "store")}
        context = start_processes(
            "rank",
            command[0],
            {rank: tuple(command[1:]) for rank in range(processes)},
            {
                rank: {**variables, "RANK": str(rank), "LOCAL_RANK": str(rank)}
                for rank in range(processes)
            },
            DefaultLogsSpecs(log_dir=folder, redirects=Std.ALL),
        )
        try:
            while (result := context.wait(timeout=2 * POLL, period=POLL)) is None:
                watch()
        except SignalException as end:
            raise (Terminated if end.sigval == signal.SIGTERM else KeyboardInterrupt) from None
        finally:
            context.close(timeout=GRACE)
        rank, code = _first_failure(result) if result.failures else (0, 0)
        said = Path(result.stderrs[rank]).read_text(encoding="utf-8", errors="replace").rstrip()
    if code == 2 and "error: " in said:
        raise UserError(said.rpartition("error: ")[2])
    if said:
        print(said, file=sys.stderr)
    if code:
        how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"failed (exit code {code})"
        raise RunLost(
            f"process {rank} of {processes} {how}; the last checkpoint stays, and the same command "
            "with --resume goes on"
        )


def _defaults(processes: int) -> dict[str, str]:
    """Return variables for all ranks; what the user has set stays."""
    usual: dict[str, str] = {}
    if (interface := LOOPBACK.get(sys.platform)) is not None:
        usual |= {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": interface}
    number = str(processes)
    return {
        **{name: value for name, value in usual.items() if name not in os.environ},
        **share_of_threads(processes),
        "WORLD_SIZE": number,
        "LOCAL_WORLD_SIZE": number,
    }


def _first_failure(result: Any) -> tuple[int, int]:
    """Return the rank that failed first and its exit code, minus N where signal N ended it."""
    first = min(  # the others were ended by SIGTERM, within the same second perhaps
        result.failures.values(),
        key=lambda failure: (failure.exitcode == -signal.SIGTERM, failure.timestamp),
    )
    return int(first.local_rank), int(first.exitcode)


@contextmanager
def _as_before() -> Iterator[None]:
    """Put the signals' handlers back afterwards, and keep the launcher's own messages to itself."""
    numbers = [
        getattr(signal, name)
        for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")
        if hasattr(signal, name) and threading.current_thread() is threading.main_thread()
    ]
    handlers = {number: signal.getsignal(number) for number in numbers}
    logger = logging.getLogger("torch.distributed.elastic.multiprocessing.api")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
        for number, handler in handlers.items():
            signal.signal(number, handler)
