"""Answers of a run's models as its page shows them: a table a task."""

from __future__ import annotations

from collections.abc import Sequence

from prefixnas.report.grid import Cell, Grid, Span
from prefixnas.report.page import details
from prefixnas.run.answers import Example, TaskAnswers
from prefixnas.run.evaluation import TRAINED
from prefixnas.run.record import Record


def shown_column(answers: TaskAnswers) -> str | None:
    """Return the column whose answers stand for the run: the trained child, or the last one."""
    columns = [column for example in answers.examples for column in example.answers]
    return TRAINED if TRAINED in columns else columns[-1] if columns else None


def answer_parts(record: Record) -> list[str]:
    """Return a table for each task whose answers were kept, each shown when it is clicked on.

    Raises:
        UserError: The file that holds them is damaged.
    """
    labels = list(record.columns())
    return [
        details(
            f"{task}: {len(kept.examples)} examples",
            f"<div class='texts'>{answer_table(kept.examples, labels).html()}</div>",
        )
        for task, kept in record.answers().items()
        if kept.examples
    ]


def answer_table(examples: Sequence[Example], labels: Sequence[str]) -> Grid:
    """Return what was asked, what is right, and what every column said; right answers are bold.

    Args:
        examples: The examples.
        labels: The run's columns in their order.
    """
    said = dict.fromkeys(column for example in examples for column in example.answers)
    columns = [*(label for label in labels if label in said), *(c for c in said if c not in labels)]
    rows: list[list[Cell]] = [
        [
            example.input,
            example.expected,
            *(_answer(example, example.answers.get(column)) for column in columns),
        ]
        for example in examples
    ]
    return Grid(["prompt", "expected", *columns], rows)


def _answer(example: Example, said: str | None) -> Span:
    return Span("-" if said is None else said, "bold" if said == example.expected else "")
