"""Waiting until NNI has no more to do."""

from __future__ import annotations

import time
from collections.abc import Callable

from prefixnas.errors import UserError
from prefixnas.experiments.nni.manager import Manager

ENDED = ("DONE", "ERROR", "STOPPED")
NO_MORE = "TUNER_NO_MORE_TRIAL"
OVER = ("SUCCEEDED", "FAILED", "USER_CANCELED", "SYS_CANCELED", "EARLY_STOPPED")
"""NNI's words for a manager, and for a trial, that will do no more."""


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
    idle = 0
    while True:
        try:
            status = manager.status()
            # Between two trials there may be a moment without any.
            idle = 0 if status != NO_MORE or _running(manager) else idle + 1
        except OSError as error:
            raise UserError(
                f"NNI's manager is gone; trials that still run finish, resume goes on: {error}"
            ) from error
        if status in ENDED:
            return status
        if idle > 1:
            return "DONE"
        look()
        time.sleep(pause)


def _running(manager: Manager) -> bool:
    jobs = manager.rest.get("/trial-jobs")
    return any(job["status"] not in OVER for job in jobs)
