"""What a finished run came to: `result.json`, written and read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from prefixnas.base.errors import UserError, brief
from prefixnas.base.files import parse_json, write_text
from prefixnas.run import events
from prefixnas.run.evaluation import TRAINED, Evaluation, differences
from prefixnas.run.event_file import read_events
from prefixnas.space.architecture import Architecture

if TYPE_CHECKING:
    from prefixnas.run.run import Run

FILE = "result.json"

Columns = dict[str, dict[str, Any] | None]


@dataclass(frozen=True)
class SearchResult:
    """What a run found and how it scored.

    Attributes:
        architecture: The chosen architecture.
        columns: Validation scores, in the order of the table; None where there is nothing to score.
        selected: The trained child's scores on the split "selection": hyper-parameters are chosen
            by them, as the architecture was.
        folder: The run directory.
        tested: Scores on the split "test", of the trained child and the baselines; empty where the
            objective has none.
    """

    architecture: Architecture
    columns: Mapping[str, Evaluation | None]
    selected: Evaluation
    folder: Path
    tested: Mapping[str, Evaluation] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> SearchResult:
        """Read the result of a finished run.

        Raises:
            UserError: The run has not ended, or a file of it is damaged.
        """
        data = read_result(folder)
        if data is None:
            raise UserError(f"{folder}: not finished: it has no {FILE}")
        if data.get("selection") is None:
            raise UserError(f"{folder / FILE}: key 'selection': is missing")
        columns = {
            label: Evaluation.from_json(column) if column is not None else None
            for label, column in data["columns"].items()
        }
        architecture = Architecture.load(folder / "architecture.yaml")
        tested = {label: Evaluation.from_json(c) for label, c in data.get("test", {}).items()}
        return cls(architecture, columns, Evaluation.from_json(data["selection"]), folder, tested)

    def __fspath__(self) -> str:
        """Return the run directory: whatever takes its path takes the result."""
        return str(self.folder)

    @property
    def score(self) -> float:
        """The trained child's average score.

        Raises:
            UserError: The run was blind; `selected` has its score on the split "selection".
        """
        trained = self.columns[TRAINED]
        if trained is None:
            raise UserError(f"{self.folder}: a blind run has no score on validation data")
        return trained.score

    @property
    def scores(self) -> dict[str, dict[str, float]]:
        """The validation score of every task, by column; empty where there is nothing to score."""
        return {
            label: dict(column.task_scores) if column is not None else {}
            for label, column in self.columns.items()
        }

    @property
    def adapter(self) -> Path:
        """The folder of what was trained, as the objective saved it."""
        return self.folder / "adapter"

    @property
    def events(self) -> list[events.Event]:
        """What happened in the run, read from its file."""
        return read_events(self.folder)


def write_result(run: Run, result: SearchResult, more: Mapping[str, Any], seconds: float) -> None:
    """Write `result.json`, which says that the run has ended.

    Args:
        run: The run.
        result: What it found.
        more: Further keys.
        seconds: How long it took.
    """
    columns = {
        label: evaluation.to_json() if evaluation is not None else None
        for label, evaluation in result.columns.items()
    }
    tested = {label: evaluation.to_json() for label, evaluation in result.tested.items()}
    data: dict[str, Any] = {
        "columns": columns,
        "differences": differences(result.columns),
        "selection": result.selected.to_json(),
        **({"test": tested} if tested else {}),
        "architecture": result.architecture.choices,
        "space": run.space.name,
        "steps": {"search": run.spent, "total": run.budget.whole},
        "seed": run.seed,
        "width": run.objective.width,
        **more,
        "seconds": seconds,
    }
    write_text(run.folder / FILE, json.dumps(data, indent=2) + "\n")


def read_result(run_dir: Path) -> dict[str, Any] | None:
    """Read `result.json` of a run; None if the run has not ended.

    Raises:
        UserError: The file is not what a run writes.
    """
    path = run_dir / FILE
    if not path.is_file():
        return None
    try:
        result = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not valid JSON") from error
    check_columns(result, str(path))
    checked: dict[str, Any] = result
    return checked


def check_columns(result: Any, where: str) -> Columns:
    """Return the columns of a result.

    Raises:
        UserError: A key is missing or of another type; names it.
    """
    try:
        TypeAdapter(_Result).validate_python(result)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        found = "is missing" if first["type"] == "missing" else f"holds {brief(first['input'])}"
        place = f"key {key!r}: {found}" if key else "expected an object with the key 'columns'"
        raise UserError(f"{where}: {place}") from error
    columns: Columns = result["columns"]
    return columns


@dataclass(frozen=True)
class _Column:
    """What is used of a column; it may hold more."""

    task_scores: dict[str, float | None]
    score: float | None
    scores: dict[str, dict[str, float | None]] = field(default_factory=dict)
    standard_errors: dict[str, float] | None = None
    standard_error: float | None = None


@dataclass(frozen=True)
class _Difference:
    """What is used of a difference of two columns; it may hold more."""

    of: str
    over: str
    task_scores: dict[str, float]
    score: float
    examples: dict[str, int] = field(default_factory=dict)
    standard_errors: dict[str, float] = field(default_factory=dict)
    standard_error: float | None = None


@dataclass(frozen=True)
class _Result:
    """What is used of a result; it may hold more."""

    columns: dict[str, _Column | None]
    selection: _Column | None = None
    test: dict[str, _Column] = field(default_factory=dict)
    steps: dict[str, int] | None = None
    width: int | None = None
    baselines: dict[str, str] | None = None
    space: str | None = None
    seed: int | None = None
    trained_parameters: int | None = None
    parameters: int | None = None
    differences: list[_Difference] = field(default_factory=list)
