"""Starting one run as several processes on this machine, with torch's own launcher."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from prefixnas.errors import RunLost, UserError

LOCAL = {"linux": "lo", "darwin": "lo0"}
"""Name of the loopback interface: the ranks talk there and nowhere else."""

POLL, GRACE = 0.1, 10
"""Seconds between two looks at the processes, and from SIGTERM to SIGKILL."""


def launch(command: Sequence[str], processes: int) -> int:
    """Run a command as several processes that train together; end all if one fails.

    They find each other through a file and talk over the loopback interface; each knows its place
    by the variables that torchrun sets, too (RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE).

    Args:
        command: The program and its arguments; it calls `prefixnas.ranks.join`.
        processes: How many.

    Returns:
        0, or the exit code of the first process that failed.

    Raises:
        UserError: More processes than GPUs.
        RunLost: A process was killed; says which, and by what.
        KeyboardInterrupt: This process was told to end; the others have ended.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, start_processes
    from torch.distributed.elastic.multiprocessing.api import SignalException

    from prefixnas.ranks import STORE, check_devices

    if processes < 1:
        raise UserError(f"processes must be at least 1, not {processes}")
    check_devices(processes)
    for name in ("api", "subprocess_handler"):  # what they say is said here in one line
        logging.getLogger(f"torch.distributed.elastic.multiprocessing.{name}").disabled = True
    before = {number: signal.getsignal(number) for number in _HANDLED}
    with tempfile.TemporaryDirectory() as folder:
        shared = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        shared |= {STORE: Path(folder) / "store"}
        threads = max(1, (os.cpu_count() or 1) // processes)
        usual = {"OMP_NUM_THREADS": threads}
        if sys.platform in LOCAL:
            usual |= dict.fromkeys(("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"), LOCAL[sys.platform])
        shared |= {name: value for name, value in usual.items() if name not in os.environ}
        variables = {name: str(value) for name, value in shared.items()}
        context = start_processes(
            "rank",
            command[0],
            {rank: tuple(command[1:]) for rank in range(processes)},
            {
                rank: {**variables, "RANK": str(rank), "LOCAL_RANK": str(rank)}
                for rank in range(processes)
            },
            DefaultLogsSpecs(log_dir=folder),
        )
        try:
            result = context.wait(period=POLL)
        except (SignalException, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        finally:
            context.close(timeout=GRACE)
            for number, handler in before.items():
                signal.signal(number, handler)
    assert result is not None
    if not result.failures:
        return 0
    first = min(  # the others were ended by SIGTERM, within the same second perhaps
        result.failures.values(),
        key=lambda failure: (failure.exitcode == -signal.SIGTERM, failure.timestamp),
    )
    if first.exitcode > 0:
        return int(first.exitcode)
    name = signal.Signals(-first.exitcode).name
    raise RunLost(
        f"process {first.local_rank} of {processes} was ended by {name}; the last checkpoint "
        "stays, and the same command with --resume goes on"
    )


_HANDLED = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")
    if hasattr(signal, name)
)
