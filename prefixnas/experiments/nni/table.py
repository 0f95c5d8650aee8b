"""The trials of an experiment as a table, from the study: what `status` and `export` show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefixnas.base.errors import UserError
from prefixnas.base.files import write_csv, write_text
from prefixnas.experiments.experiment import Experiment
from prefixnas.experiments.rows import ARCHITECTURE, DIRECTORY, ERROR, PARAMETERS, VALIDATION, Row
from prefixnas.experiments.study import Study
from prefixnas.experiments.trial import RESULT

if TYPE_CHECKING:
    from rich.table import Table

CUT_OFF, FINISHED = "cut off", "finished"
"""What has become of trials that nobody holds: `resume` goes on with them, or tells the study."""


def trial_table(experiment: Experiment, folder: Path) -> Table:
    """Return the table that is shown."""
    from rich.table import Table

    study = _open(experiment, folder)
    rows = study.rows()
    names = list(dict.fromkeys(name for row in rows for name in row.params))
    table = Table("trial", "state", "score", "epochs", *names, box=None)
    for row in rows:
        score = "" if row.score is None else f"{row.score:.4f}"
        values = (_short(row.params.get(name)) for name in names)
        table.add_row(
            str(row.number), _state(study, row), score, str(len(row.epochs) or ""), *values
        )
    return table


def summary(experiment: Experiment, folder: Path) -> str:
    """Say how many trials are over, and which is the best."""
    study = _open(experiment, folder)
    rows = study.rows()
    trials = max(experiment.trials, len(rows))  # `resume --trials` may have asked for more
    over = f"{sum(row.over for row in rows)} of {trials} trials are over"
    best = study.best()
    if best is None:
        return over
    return f"{over}; best: trial {best.number}, {best.score:.4f}, {best.notes[DIRECTORY]}"


def write_table(experiment: Experiment, folder: Path, path: Path) -> None:
    """Write all trials as CSV, or as JSON if the name says so.

    Raises:
        UserError: Another ending, no study, a file that cannot be written.
    """
    study = _open(experiment, folder)
    rows = [{**_record(row), "state": _state(study, row)} for row in study.rows()]
    if path.suffix == ".csv":
        names = list(dict.fromkeys(name for row in rows for name in row))
        cells = ({name: _cell(row.get(name)) for name in names} for row in rows)
        write_csv(path, cells)
    elif path.suffix == ".json":
        try:
            write_text(path, json.dumps(rows, indent=2) + "\n")
        except OSError as error:
            raise UserError(f"{path}: cannot be written: {error.strerror}") from error
    else:
        raise UserError(f"{path}: a table is a .csv or a .json file")


def _state(study: Study, row: Row) -> str:
    """Return a trial's state; one that NNI left behind is no longer running."""
    if not study.lost(row):
        return row.state
    return FINISHED if (study.trial_folder(row.number) / RESULT).is_file() else CUT_OFF


def _record(row: Row) -> dict[str, Any]:
    return {
        "trial": row.number,
        "state": row.state,
        "score": row.score,
        "validation": row.notes.get(VALIDATION),
        "parameters": row.notes.get(PARAMETERS),
        "seconds": row.seconds,
        **row.params,
        "architecture": row.notes.get(ARCHITECTURE),
        "epochs": list(row.epochs.values()),
        "error": row.notes.get(ERROR),
        "run directory": row.notes.get(DIRECTORY),
    }


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, (dict, list)) else value


def _short(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _open(experiment: Experiment, folder: Path) -> Study:
    if not Study.begun(experiment, folder):
        raise UserError(f"{folder}: no study of the experiment {experiment.name!r} is there")
    return Study.open(experiment, folder)
