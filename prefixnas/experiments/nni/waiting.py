"""Waiting until NNI has no more to do."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from prefixnas.base.errors import UserError
from prefixnas.experiments.experiment import read_order
from prefixnas.experiments.nni.manager import Manager, inside
from prefixnas.experiments.nni.settings import LAUNCH
from prefixnas.experiments.rows import RUNNING
from prefixnas.experiments.study import Study

ENDED = ("DONE", "ERROR", "STOPPED")
NO_MORE = "TUNER_NO_MORE_TRIAL"
OVER = ("SUCCEEDED", "FAILED", "USER_CANCELED", "SYS_CANCELED", "EARLY_STOPPED")
"""NNI's words for a manager, and for a trial, that will do no more."""

SETTLE = 3.0
"""Seconds without a trial after which none will come: NNI looks after them once a second."""


def wait(manager: Manager, look: Callable[[], None] = lambda: None, pause: float = 1.0) -> str:
    """Wait until all trials are over.

    Args:
        manager: The manager.
        look: Called between two looks at it.
        pause: Seconds between them.

    Returns:
        NNI's last word: DONE, or ERROR.

    Raises:
        UserError: The manager is gone.
    """
    since: float | None = None
    while True:
        try:
            status = manager.status()
            busy = status != NO_MORE or _busy(manager)
        except OSError as error:
            raise UserError(
                f"NNI's manager is gone; trials that still run finish, resume goes on: {error}"
            ) from error
        now = time.monotonic()
        since = None if busy else since or now
        if status in ENDED:
            return status
        if since is not None and now - since > SETTLE:
            return "DONE"
        look()
        time.sleep(pause)


def _busy(manager: Manager) -> bool:
    """Tell whether a trial runs, or was handed to NNI, which has yet to start it."""
    known = set()
    for job in manager.rest.get("/trial-jobs"):
        if job["status"] not in OVER:
            return True
        known |= {json.loads(values)["parameters"]["trial"] for values in job["hyperParameters"]}
    path = inside(manager.folder) / LAUNCH
    experiment = read_order(json.loads(path.read_text(encoding="utf-8")))
    rows = Study.open(experiment, manager.folder).rows()
    return any(row.state == RUNNING and row.number not in known for row in rows)
