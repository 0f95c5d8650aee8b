"""What models answered to some examples, kept beside a run's scores: `answers.json`.

An objective says what is worth showing (`Evaluation.answers`): the same few examples whatever the
model, and for a task of classes how often each was taken for which. The file grows with the number
of tasks and columns, not with that of the examples.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from prefixnas.base.errors import UserError, brief
from prefixnas.base.files import parse_json, read_text, write_text

FILE = "answers.json"

MOST_EXAMPLES, MOST_CHARACTERS, MOST_LABELS = 10, 1000, 100
"""What an objective should keep of a task: examples, characters of a text, classes."""


COUNTS = 2**53
"""More examples than there are."""


@dataclass(frozen=True)
class Answered:
    """An example and what a model said to it.

    Attributes:
        input: What it was asked.
        expected: What is right.
        answer: What it said.
    """

    input: str
    expected: str
    answer: str


@dataclass(frozen=True)
class Answers:
    """What a model answered on a task, as far as a report shows it.

    Attributes:
        examples: A few, the same ones whatever the model.
        labels: The classes; empty where there are none, or too many to show.
        confusion: How many examples of each class were taken for which, over all examples:
            `[expected, answered]`.
    """

    examples: Sequence[Answered]
    labels: Sequence[str] = ()
    confusion: Sequence[Sequence[int]] = ()


@dataclass(frozen=True)
class Example:
    """An example with the answers of several models, by their column."""

    input: str
    expected: str
    answers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskAnswers:
    """What is kept of a task; see `Answers`.

    Attributes:
        examples: The examples.
        labels: The classes.
        confusion: Per column `[expected, answered]`.
    """

    examples: Sequence[Example] = ()
    labels: Sequence[str] = ()
    confusion: Mapping[str, Sequence[Sequence[int]]] = field(default_factory=dict)

    def joined(self, column: str, found: Answers) -> TaskAnswers:
        """Return it with the answers of a column; those of other examples are dropped."""
        known = {(kept.input, kept.expected): kept.answers for kept in self.examples}
        examples = [
            Example(said.input, said.expected,
                    {**known.get((said.input, said.expected), {}), column: said.answer})
            for said in found.examples
        ]  # fmt: skip
        counted = {column: found.confusion} if found.confusion else {}
        kept = self.confusion if list(self.labels) == list(found.labels) else {}
        return replace(self, examples=examples, labels=found.labels, confusion={**kept, **counted})


def keep_answers(folder: Path, column: str, found: Mapping[str, Answers]) -> None:
    """Add the answers of a column to those that a run keeps.

    Args:
        folder: The run directory.
        column: The model's label.
        found: Its answers by task.

    Raises:
        UserError: The file is damaged, or cannot be written.
    """
    if not found:
        return
    kept = read_answers(folder)
    kept |= {
        task: kept.get(task, TaskAnswers()).joined(column, said) for task, said in found.items()
    }
    data = {task: asdict(answers) for task, answers in kept.items()}
    write_text(folder / FILE, json.dumps(data, indent=1) + "\n")


def read_answers(folder: Path) -> dict[str, TaskAnswers]:
    """Read what a run keeps by task; nothing if it keeps none.

    Raises:
        UserError: The file is not what a run writes; names the key.
    """
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        found = _FILE.validate_python(parse_json(read_text(path)))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: key {key!r}: holds {brief(first['input'])}") from error
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON") from error
    for task, answers in found.items():
        for column, counts in answers.confusion.items():
            if {len(counts), *map(len, counts)} != {len(answers.labels)}:
                raise UserError(f"{path}: key '{task}.confusion.{column}': not a row a label")
            if not all(0 <= count < COUNTS for row in counts for count in row):
                raise UserError(f"{path}: key '{task}.confusion.{column}': not numbers of examples")
    return found


_FILE = TypeAdapter(dict[str, TaskAnswers])
