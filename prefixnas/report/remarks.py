"""What the scores of a run are worth: differences of its columns, in a table and in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefixnas.base.estimates import NORMAL
from prefixnas.report.grid import Cell, Grid, Number, Span
from prefixnas.run.evaluation import AVERAGE, BASELINE, EQUAL_WEIGHTS, TRAINED, UNTOUCHED
from prefixnas.run.record import Record

NEAR = 0.005
"""A difference of scores that is called none where nobody knows how far it scatters."""

Difference = Mapping[str, Any]


def difference_table(record: Record) -> Grid:
    """Return how much better the trained child is than each other column, on the same examples.

    A row per task and their average. `>` and `<` stand where the 95 % interval of the difference
    leaves zero out, `~` where it does not, `=` where both did as well on every single example.
    """
    found = {over: less for (of, over), less in record.differences().items() if of == TRAINED}
    found = {over: less for over, less in found.items() if less.get("standard_error") is not None}
    tasks = list(dict.fromkeys(task for less in found.values() for task in less["task_scores"]))
    rows: list[list[Cell]] = [
        [name, *(_cell(*_of(less, name)) for less in found.values())]
        for name in ([*tasks, AVERAGE] if tasks else [])
    ]
    head = ["task", *(Number(f"over {over}") for over in found)]
    return Grid(head, rows, [len(rows) - 1] if rows else [])


def _of(less: Difference, name: str) -> tuple[float | None, float | None]:
    """Return a difference in a task, or on average, and how far its interval reaches."""
    mean = name == AVERAGE
    value = less["score"] if mean else less["task_scores"].get(name)
    error = less.get("standard_error") if mean else less.get("standard_errors", {}).get(name)
    return value, None if error is None else NORMAL * error


def _cell(value: float | None, reach: float | None) -> Cell:
    if value is None or reach is None:
        return "-"
    if value == reach == 0:
        return "= same"
    sign = ">" if value > reach else "<" if value < -reach else "~"
    return Span(f"{sign} {_signed(value)} ± {reach:.3f}", "" if sign == "~" else "bold")


def remarks(record: Record) -> list[str]:
    """Return what is to be said under the scores of a finished run, a sentence a line."""
    return [*_worth(record), *_hint(record)]


def _worth(record: Record) -> list[str]:
    """Compare the trained child with the baselines, or without any with the untouched model."""
    named: Mapping[str, str] = (record.result or {}).get("baselines") or {}
    labels = [named[phase] for phase in (BASELINE, EQUAL_WEIGHTS) if phase in named]
    found = record.differences()
    pairs = [(over, found.get((TRAINED, over))) for over in labels or [UNTOUCHED]]
    known = [
        (over, less) for over, less in pairs if less and less.get("standard_error") is not None
    ]
    if not known:
        return []
    count = sum(known[0][1].get("examples", {}).values())
    said = [_verdict(over, less) for over, less in known]
    return [f"On the same {count:,} validation examples, the {TRAINED} {' and '.join(said)}."]


def _verdict(over: str, less: Difference) -> str:
    value, reach = _of(less, AVERAGE)
    assert value is not None and reach is not None
    if value == reach == 0:
        return f"is as good as {over} on every single one"
    interval = f"95 % interval {_signed(value - reach)} to {_signed(value + reach)}"
    if value > reach:
        return f"is better than {over} by {value:.3f} ({interval})"
    if value < -reach:
        return f"is worse than {over} by {-value:.3f} ({interval})"
    return f"cannot be told from {over} ({_signed(value)}, {interval})"


def _hint(record: Record) -> list[str]:
    """Say what to do where the scores tell nothing: no column stands out from the others."""
    columns = {label: column for label, column in record.columns().items() if column}
    trained = [column["task_scores"] for label, column in columns.items() if label != UNTOUCHED]
    if not record.finished or not trained:
        return []
    steps = ((record.result or {}).get("steps") or {}).get("total")
    longer = "train longer (--steps" + (f", {steps} here)" if steps else ")")
    constant = _constant(record)
    less = [found for (_, over), found in record.differences().items() if over == UNTOUCHED]
    if less and not any(map(_stands_out, less)):
        return [
            f"No column stands out from the {UNTOUCHED} model: {longer}, or look at the losses."
        ]
    if len(trained) > 1 and all(scores == trained[0] for scores in trained):
        return [f"All models that were trained score the same on every task: {longer}, or take "
                "tasks that leave more to learn."]  # fmt: skip
    if constant:
        return [f"The {TRAINED} gives every example of {', '.join(constant)} the same answer: "
                f"{longer}."]  # fmt: skip
    return []


def _constant(record: Record) -> list[str]:
    """Return the tasks of classes in which the trained child takes all examples for one class."""
    found = {task: kept.confusion.get(TRAINED, ()) for task, kept in record.answers().items()}
    return [
        task for task, counts in found.items()
        if sum(map(sum, counts)) > 1 and sum(map(any, zip(*counts, strict=True))) == 1
    ]  # fmt: skip


def _stands_out(less: Difference) -> bool:
    value, reach = _of(less, AVERAGE)
    return value is not None and value > (NEAR if reach is None else reach)


def _signed(value: float) -> str:
    return f"{round(value, 3) + 0.0:+.3f}"  # no "-0.000"
