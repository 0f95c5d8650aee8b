"""What NNI noted about its trials; read from its database, never written."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TAKEN_UP = ("WAITING", "RUNNING")
"""What became of trials that NNI starts again when it goes on."""


@dataclass(frozen=True)
class Job:
    """A trial as NNI knows it.

    Attributes:
        id: NNI's name for it.
        event: The last thing that happened to it.
        values: Its hyper-parameters, the study's number of the trial among them.
    """

    id: str
    event: str
    values: dict[str, Any]

    @property
    def taken_up(self) -> bool:
        """Whether NNI starts it again when it goes on."""
        return self.event in TAKEN_UP


def read_jobs(root: Path) -> list[Job]:
    """Read the trials that were submitted.

    Args:
        root: NNI's folder of the experiment.
    """
    database = root / "db" / "nni.sqlite"
    if not database.is_file():
        return []
    connection = sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)
    try:
        rows = connection.execute(
            "select trialJobId, event, data from TrialJobEvent where trialJobId != '' "
            "order by timestamp, rowid"
        ).fetchall()
    finally:
        connection.close()
    events: dict[str, str] = {}
    values: dict[str, dict[str, Any]] = {}
    for job, event, data in rows:
        events[job] = event
        if data and job not in values:  # the first event that is noted may be any
            values[job] = json.loads(data)["parameters"]
    return [Job(job, events[job], found) for job, found in values.items()]
