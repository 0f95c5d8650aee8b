"""`peml tune`: worker processes on one study, watched until there is nothing left to do.

The process that the user starts imports no torch: it starts the workers, shows the study, and ends
them. Whatever kills it kills them too, and the next one goes on where the study stands.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import yaml

from prefixnas.base.errors import UserError
from prefixnas.compare.runner import last_error, threads
from prefixnas.experiments.experiment import Experiment
from prefixnas.experiments.gpus import demand_of_worker
from prefixnas.experiments.lease import Demand, Lease, lease_now
from prefixnas.experiments.rows import Row
from prefixnas.experiments.study import Study
from prefixnas.experiments.worker import CHECK, CRASHES

POLL = 0.5
"""Seconds between looks at workers and study."""

Show = Callable[[Sequence[Row]], None]


def check_problem(experiment: Experiment) -> None:
    """Build the problem once, in a process of its own, so that mistakes show before any trial.

    Raises:
        UserError: What it stumbled over.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        worker = _Worker(experiment, CHECK, log, {})
        try:
            code = worker.process.wait()
        finally:
            worker.stop()
        if code != 0:
            raise UserError(last_error(log, code))


def tune(study: Study, workers: int, show: Show) -> None:
    """Run the study's trials in so many processes, until all of them are over.

    Args:
        study: The study.
        workers: How many trials run side by side here; other processes may run more.
        show: Called with the trials, again and again.

    Raises:
        UserError: A worker cannot work (the storage is gone, say). The trials stay as they are.
    """
    logs = study.folder / "logs"
    demand = demand_of_worker(workers, study.experiment.processes())
    crew = [
        _Slot(study, demand, logs / f"worker-{os.getpid()}-{number}.log", threads(workers))
        for number in range(workers)
    ]
    try:
        started = sum(slot.start() for slot in crew)
        if started < workers:
            print(
                f"{workers - started} of {workers} workers wait for GPUs that others hold",
                flush=True,
            )
        while any([slot.busy() for slot in crew]):
            show(study.rows())
            time.sleep(POLL)
    finally:
        for slot in crew:
            slot.stop()
    show(study.rows())


class _Slot:
    """A place for a worker: one that dies in a trial is followed by another one."""

    def __init__(
        self, study: Study, demand: Demand, log: Path, environment: Mapping[str, str]
    ) -> None:
        self._study, self._demand, self._log = study, demand, log
        self._environment = dict(environment)
        self._lease: Lease | None = None
        self._worker: _Worker | None = None

    def start(self) -> bool:
        """Start a worker, on GPUs of its own; False: they are not to be had yet."""
        if self._demand.gpus and self._lease is None:
            self._lease = lease_now(self._demand)
            if self._lease is None:
                return False
            self._environment |= self._lease.environment()
        study = self._study
        self._worker = _Worker(study.experiment, str(study.folder), self._log, self._environment)
        return True

    def busy(self) -> bool:
        """Tell whether its worker still works; start another one if it died.

        Raises:
            UserError: The worker says that it cannot work.
        """
        if self._worker is None:
            return self.start() or any(not row.over for row in self._study.rows())
        code = self._worker.process.poll()
        if code is None:
            return True
        if code == 0:
            return False
        error = last_error(self._log, code)
        if code > 0:
            raise UserError(error)
        self._study.crashed(self._worker.process.pid, error, CRASHES)
        self.start()
        return True

    def stop(self) -> None:
        """End the worker, if it is there; its trial is resumable at any moment."""
        if self._worker is not None:
            self._worker.stop()
        if self._lease is not None:
            self._lease.release()


class _Worker:
    """A process of `prefixnas.experiments.worker`."""

    def __init__(
        self, experiment: Experiment, argument: str, log: Path, environment: dict[str, str]
    ) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "prefixnas.experiments.worker", argument],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,  # Ctrl-C is for the process that watches
                close_fds=False,  # a lease is inherited
            )
        line = {
            "experiment": yaml.safe_dump(experiment.to_json(), sort_keys=False),
            "where": experiment.where,
        }
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(line).encode() + b"\n")
            self.process.stdin.flush()

    def stop(self) -> None:
        """End it with everything that it started."""
        if self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.process.stdin is not None:
            with suppress(BrokenPipeError):
                self.process.stdin.close()
