"""`prefixnas tune`: worker processes on one study, watched until there is nothing left to do.

The process that the user starts imports no torch: it starts the workers, shows the study, and ends
them. Whatever kills it kills them too, and the next one goes on where the study stands.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from prefixnas.base.errors import UserError
from prefixnas.base.processes import Child, share_of_threads
from prefixnas.experiments.lease import Demand, Lease, demand_of_worker, lease_now
from prefixnas.experiments.study import Study
from prefixnas.experiments.view import Show
from prefixnas.experiments.worker import CRASHES

WORKER = "prefixnas.experiments.worker"

POLL = 0.5
"""Seconds between looks at workers and study."""


def tune(study: Study, workers: int, show: Show, note: Callable[[str], None]) -> None:
    """Run the study's trials in so many processes, until all of them are over.

    Args:
        study: The study.
        workers: How many trials run side by side here; other processes may run more.
        show: Called with the trials, again and again.
        note: Called with a line for the user.

    Raises:
        UserError: A worker cannot work (the storage is gone, say). The trials stay as they are.
    """
    logs = study.folder / "logs"
    demand = demand_of_worker(workers, study.experiment.processes())
    crew = [
        _Slot(study, demand, logs / f"worker-{os.getpid()}-{number}.log", share_of_threads(workers))
        for number in range(workers)
    ]
    try:
        started = sum(slot.start() for slot in crew)
        if started < workers:
            note(f"{workers - started} of {workers} workers wait for GPUs that others hold")
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
        self._worker: Child | None = None

    def start(self) -> bool:
        """Start a worker, on GPUs of its own; False: they are not to be had yet."""
        if self._demand.gpus and self._lease is None:
            self._lease = lease_now(self._demand)
            if self._lease is None:
                return False
            self._environment |= self._lease.environment()
        self._worker = Child(
            WORKER,
            [str(self._study.folder)],
            self._log,
            self._environment,
            # A database's password shows in no argument.
            first_line=json.dumps(self._study.experiment.order()).encode(),
            leased=True,
        )
        return True

    def busy(self) -> bool:
        """Tell whether its worker still works; start another one if it died.

        Raises:
            UserError: The worker says that it cannot work.
        """
        if self._worker is None:
            return self.start() or any(not row.over for row in self._study.rows())
        code = self._worker.poll()
        if code is None:
            return True
        if code == 0:
            return False
        error = self._worker.error()
        if code > 0:
            raise UserError(error)
        self._study.crashed(self._worker.pid, error, CRASHES)
        self.start()
        return True

    def stop(self) -> None:
        """End the worker, if it is there; its trial is resumable at any moment."""
        if self._worker is not None:
            self._worker.stop()
        if self._lease is not None:
            self._lease.release()
