"""The trials of an experiment as a table, from the study: what `status` and `export` show."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefixnas.base.errors import UserError
from prefixnas.base.files import write_csv, write_text
from prefixnas.experiments.experiment import Experiment
from prefixnas.experiments.rows import DIRECTORY, Row
from prefixnas.experiments.study import Study
from prefixnas.experiments.trial import RESULT

CUT_OFF, FINISHED = "cut off", "finished"
"""What has become of trials that nobody holds: `resume` goes on with them, or tells the study."""

RUN = "run directory"
"""The column of it."""


def read_rows(study: Study) -> list[Row]:
    """Return the trials, each with what has become of it."""
    return [replace(row, state=_state(study, row)) for row in study.rows()]


def summary(study: Study) -> str:
    """Say how many trials are over, and which is the best."""
    rows = study.rows()
    trials = max(study.experiment.trials, len(rows))  # `resume --trials` may have asked for more
    over = f"{sum(row.over for row in rows)} of {trials} trials are over"
    best = study.best()
    if best is None:
        return over
    return f"{over}; best: trial {best.number}, {best.score:.4f}, {best.notes[DIRECTORY]}"


def write_table(study: Study, path: Path) -> None:
    """Write all trials as CSV, or as JSON if the name says so.

    Raises:
        UserError: Another ending, a file that cannot be written.
    """
    rows = [_record(row) for row in read_rows(study)]
    if path.suffix == ".csv":
        names = list(dict.fromkeys(name for row in rows for name in row))
        cells = ({name: _cell(row.get(name)) for name in names} for row in rows)
        write_csv(path, cells)
    elif path.suffix == ".json":
        write_text(path, json.dumps(rows, indent=2) + "\n")
    else:
        raise UserError(f"{path}: a table is a .csv or a .json file")


def _state(study: Study, row: Row) -> str:
    """Return a trial's state; one that NNI left behind is no longer running."""
    if not study.lost(row):
        return row.state
    return FINISHED if (study.trial_folder(row.number) / RESULT).is_file() else CUT_OFF


def _record(row: Row) -> dict[str, Any]:
    known = row.document()
    params, run = known.pop("hyperparameters"), known.pop("run")
    columns = {*known, RUN}
    named = {f"hyperparameter {key}" if key in columns else key: params[key] for key in params}
    return {**known, **named, RUN: run}


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, (dict, list)) else value


def open_study(experiment: Experiment, folder: Path) -> Study:
    """Open the study of an experiment.

    Raises:
        UserError: It has not begun.
    """
    if not Study.begun(experiment, folder):
        raise UserError(f"{folder}: no study of the experiment {experiment.name!r} is there")
    return Study.open(experiment, folder)
