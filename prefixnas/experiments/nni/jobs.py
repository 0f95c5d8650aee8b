"""What NNI noted about its trials; read from its database, never written."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

TAKEN_UP = ("WAITING", "RUNNING")
"""What became last of trials that NNI starts again when it goes on."""


class Job(NamedTuple):
    """A trial that NNI was given: its number in the study, and whether NNI starts it again."""

    trial: int
    taken_up: bool


def read_jobs(root: Path) -> list[Job]:
    """Read the trials that were submitted.

    Args:
        root: NNI's folder of the experiment.
    """
    database = root / "db" / "nni.sqlite"
    if not database.is_file():
        return []
    with closing(
        sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)
    ) as connection:
        rows = connection.execute(
            "select trialJobId, event, data from TrialJobEvent where trialJobId != '' "
            "order by timestamp, rowid"
        ).fetchall()
    last = {job: event for job, event, _ in rows}
    # The first event that is noted may be any; the first with data has the hyper-parameters.
    data = {job: text for job, _, text in reversed(rows) if text}
    return [
        Job(json.loads(data[job])["parameters"]["trial"], last[job] in TAKEN_UP)
        for job in last
        if job in data
    ]
