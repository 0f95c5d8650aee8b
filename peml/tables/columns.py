"""The tasks of a table: a column each, which must mean the same in every row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from peml.tables.file import AVERAGE
from peml.tables.record import RunRecord
from peml.tasks.load import load_tasks
from peml.tasks.metrics import check_metrics
from peml.tasks.spec import TaskKind
from peml.tasks.task import Task
from prefixnas.base.errors import UserError, unknown

TAKEN = {
    *("row", "seed", "seeds", "trial", "steps", AVERAGE),
    *(entry.name for entry in fields(RunRecord)),
}
"""Names of columns of `table.csv` and `runs.csv` that no task may have."""


@dataclass(frozen=True)
class Column:
    """A task of a table.

    Attributes:
        name: The task's name.
        kind: Its kind.
        metrics: Its score is the mean of these.
        counts: Examples by split.
    """

    name: str
    kind: TaskKind
    metrics: tuple[str, ...]
    counts: Mapping[str, int]

    def __str__(self) -> str:
        counts = ", ".join(f"{split} {count}" for split, count in self.counts.items())
        return f"{self.name}: {self.kind}; {', '.join(self.metrics)}; {counts}"


def measured(tasks: Sequence[Task], metrics: str | Mapping[str, str]) -> list[Task]:
    """Return tasks that are scored as a table says.

    Args:
        tasks: The tasks.
        metrics: One metric for all, or by task; a task that is not named keeps its own.

    Raises:
        UserError: A metric does not fit the kind of its task, or a task does not exist.
    """
    names = [task.name for task in tasks]
    if isinstance(metrics, str):
        metrics = dict.fromkeys(names, metrics)
    for name in metrics:
        if name not in names:
            raise unknown("task", name, names, "key 'metrics'")
    for task in tasks:
        if metric := metrics.get(task.name):
            where = f"key 'metrics': task {task.name!r}"
            check_metrics((metric,), task.kind, len(task.choices), where)
    return [
        replace(task, metrics=(metrics[task.name],)) if task.name in metrics else task
        for task in tasks
    ]


def columns_of(
    rows: Mapping[str, Mapping[str, Any]], metrics: str | Mapping[str, str]
) -> list[Column]:
    """Load the tasks of all rows; return the columns that they have in common.

    Args:
        rows: Resolved configurations, by the label of the row.
        metrics: As for `measured`.

    Raises:
        UserError: A task is not usable, a row's tasks are of other names, kinds or metrics,
            or a task has the name of another column.
    """
    loaded: dict[str, list[Column]] = {}
    common: list[Column] = []
    for label, values in rows.items():
        limits = {key: values[key] for key in ("train_limit", "eval_limit")}
        found = loaded.setdefault(repr([values["tasks"], limits]), [])
        if not found:
            found += [_column(t) for t in measured(load_tasks(values["tasks"], **limits), metrics)]
        common = common or found
        _check_same(common, found, label)
    for column in common:
        if column.name in TAKEN:
            raise UserError(
                f"task {column.name!r}: another column of the table has this name; give the task "
                "another, by the key 'name' of a task file"
            )
    return common


def _column(task: Task) -> Column:
    counts = {split: len(examples) for split, examples in task.splits.items()}
    return Column(task.name, task.kind, tuple(task.metrics), counts)


def _check_same(common: Sequence[Column], found: Sequence[Column], label: str) -> None:
    if [column.name for column in found] != [column.name for column in common]:
        raise UserError(
            f"row {label!r}: its tasks are {', '.join(c.name for c in found)}, and the columns "
            f"are {', '.join(c.name for c in common)}"
        )
    for ours, theirs in zip(found, common, strict=True):
        for what in ("kind", "metrics"):
            one, other = getattr(ours, what), getattr(theirs, what)
            if one != other:
                raise UserError(
                    f"row {label!r}: {what} of task {ours.name!r}: {_shown(one)} here, and "
                    f"{_shown(other)} in the first row; a column has one"
                )


def _shown(value: object) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)
