"""What the runs of a comparison came to, read back from their directories."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prefixnas.compare.cells import REFERENCES, Cell
from prefixnas.compare.runner import notes
from prefixnas.network.supernet import count_parameters
from prefixnas.run import events
from prefixnas.run.evaluation import ARGMAX, BASELINE, MIXTURE, TRAINED, UNTOUCHED
from prefixnas.run.events import Event
from prefixnas.run.record import Record, read_record, run_space

ALONE = "alone"
"""The kind of the objective without a module."""


@dataclass(frozen=True)
class CellResult:
    """What one run came to; None where it did not get that far.

    Attributes:
        space: Name of the space; `REFERENCES` for hand-made modules and the objective alone.
        label: The variant.
        kind: "search", "draw", "hand-made", "retrained" or "alone".
        seed: The seed it counts for.
        run_seed: The seed it ran with.
        state: "finished", "failed", "refused" or "not run".
        reason: Why it was refused or failed.
        score: Validation score after training.
        argmax_child: Validation score before training on.
        mixture: Validation score of the mixture that it was cut out of.
        search_steps: Steps that the search took.
        steps: All steps.
        search_seconds: Until the architecture was known.
        seconds: Until it was trained and scored, without loading data and models.
        peak_memory: Most memory of the process, in bytes.
        peak_device_memory: The same on its accelerator.
        parameters: Trained parameters of the module that was found.
        architecture: The choices.
        task_scores: Validation scores by task.
        folder: The run directory.
        began: When it began, by ISO 8601.
        task_errors: Standard errors of `task_scores`, over the examples, where they are known.
        test: Score on the split `test` after training, the mean of the tasks that have one.
        task_tests: The same by task.
    """

    space: str
    label: str
    kind: str
    seed: int
    run_seed: int
    state: str
    reason: str | None = None
    score: float | None = None
    argmax_child: float | None = None
    mixture: float | None = None
    search_steps: int | None = None
    steps: int | None = None
    search_seconds: float | None = None
    seconds: float | None = None
    peak_memory: float | None = None
    peak_device_memory: float | None = None
    parameters: int | None = None
    architecture: Mapping[str, str] | None = None
    task_scores: Mapping[str, float] | None = None
    folder: str = ""
    began: str | None = None
    task_errors: Mapping[str, float] | None = None
    test: float | None = None
    task_tests: Mapping[str, float] | None = None

    def row(self) -> dict[str, object]:
        """Return the row of the long table: what is nested is JSON."""
        nested = {
            key: None if (value := getattr(self, key)) is None else json.dumps(dict(value))
            for key in ("architecture", "task_scores", "task_errors", "task_tests")
        }
        return {**vars(self), **nested}


def read_cells(cells: Sequence[Cell]) -> list[CellResult]:
    """Read what every cell came to, and the objective alone, which one cell a seed trains."""
    results = []
    for cell in cells:
        record = read_record(cell.folder) if cell.finished else None
        results.append(_result(cell, record))
        results += _alone(cell, record) if record is not None else []
    return results


def _result(cell: Cell, record: Record | None) -> CellResult:
    known = notes(cell)
    seed = int(cell.values["seed"])
    names = (cell.space, cell.label, cell.kind, cell.seed, seed)
    where = str(cell.folder)
    if cell.refused is not None:
        return CellResult(*names, "refused", cell.refused, folder=where)
    if record is None or record.result is None:
        error = known.get("error")
        return CellResult(*names, "failed" if error else "not run", error, folder=where)
    columns, architecture = record.columns(), record.architecture
    scores = {label: column["score"] if column else None for label, column in columns.items()}
    trained, width = columns[TRAINED], record.result.get("width")
    assert trained is not None and architecture is not None
    return CellResult(
        *names,
        "finished",
        None,
        scores[TRAINED],
        scores.get(ARGMAX),
        scores.get(MIXTURE),
        record.result["steps"]["search"],
        record.result["steps"]["total"],
        _seconds_until(record, events.Architecture) if record.of(events.Architecture) else 0.0,
        _seconds_until(record, events.Evaluation, TRAINED),
        known.get("peak_memory"),
        known.get("peak_device_memory"),
        count_parameters(run_space(record), architecture, int(width)) if width else None,
        architecture.choices,
        trained["task_scores"],
        where,
        record.start("began"),
        trained.get("standard_errors"),
        **_tests(record, TRAINED),
    )


def _alone(cell: Cell, record: Record) -> list[CellResult]:
    """Return the models without a module; the resized one has another rank with every seed."""
    assert record.result is not None
    columns, seed = record.columns(), int(cell.values["seed"])
    others = [name for name in columns if name not in (UNTOUCHED, MIXTURE, ARGMAX, TRAINED)]
    named = record.result.get("baselines", dict(zip([BASELINE], others, strict=False)))
    results, before = [], _seconds_until(record, events.Evaluation, TRAINED)
    for phase, label in named.items():
        until = _seconds_until(record, events.Evaluation, label)
        column = columns[label] or {}
        shown = label if phase == BASELINE else f"{named[BASELINE]} at equal weights"
        results.append(CellResult(
            REFERENCES, shown, ALONE, cell.seed, seed, "finished", score=column.get("score"),
            search_steps=0, steps=record.result["steps"]["total"], search_seconds=0.0,
            seconds=until - before, parameters=0, task_scores=column.get("task_scores"),
            folder=str(cell.folder), began=record.start("began"),
            task_errors=column.get("standard_errors"), **_tests(record, label),
        ))  # fmt: skip
        before = until
    return results


def _tests(record: Record, label: str) -> dict[str, Any]:
    """Return what a column scored on the split `test`; nothing where no task has one."""
    found = record.tested().get(label)
    return {"test": found["score"], "task_tests": found["task_scores"]} if found else {}


def _seconds_until(record: Record, kind: type[Event], name: str | None = None) -> float:
    """Return the time of all processes up to the last validation, or other event, of that name."""
    at = [
        index
        for index, event in enumerate(record.events)
        if isinstance(event, kind)
        and name in (None, getattr(event, "name", None))
        and getattr(event, "split", "validation") == "validation"
    ]
    until = record.events[: at[-1] + 1] if at else record.events
    return Record(record.folder, until, None, {}, None).seconds()


def failures(results: Sequence[CellResult]) -> list[str]:
    """Return a line about each run that failed."""
    return [f"{result.folder}: {result.reason}" for result in results if result.state == "failed"]
