"""Answer new records with what was trained."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from peml.adapters.adapted import Adapted
from peml.adapters.load import Trained, manifest_of, opened
from peml.adapters.tasks import trained_task
from peml.answers.evaluation import Answer, answer_examples
from peml.batches.collate import Collator
from peml.tasks.examples import Example
from peml.tasks.files import Records, read_files
from peml.tasks.questions import questions
from peml.tasks.results import Results
from peml.tasks.spec import TaskKind, check_count
from peml.tasks.task import Task
from prefixnas.base.errors import UserError, brief


@dataclass(frozen=True)
class Predicted:
    """The answer to a record.

    Attributes:
        prediction: The choice's text, the number or the text; None: the model wrote no number.
        probabilities: Of each choice, in the order of training; they add up to 1. Empty unless the
            task is a choice task.
    """

    prediction: str | float | None
    probabilities: Mapping[str, float] = field(default_factory=dict)


def predict(
    adapter: Trained,
    records: Sequence[Mapping[str, Any]] | Records | str | PathLike[str],
    task: str | None = None,
    *,
    max_length: int | None = None,
    warn: Callable[[str], object] = warnings.warn,
    progress: Callable[[int], object] = lambda count: None,
    device: str | torch.device = "auto",
    dtype: str = "auto",
    model: str | Path | None = None,
) -> list[Predicted]:
    """Answer records of a task that an adapter was trained on; they need no answer.

    The model is asked as it was in training: by the task's own template, and among its choices.

    Args:
        adapter: A run directory, an adapter folder, what `train` returned, or what `load` made of
            it.
        records: One mapping a record, with the fields of the template; or a JSONL, CSV, TSV or
            Parquet file of them. Other fields do no harm.
        task: The task's name; None: the only one that the adapter knows.
        max_length: Longest input in tokens; None: as in training.
        warn: Called with a line if prompts were cut to that length, or answers hold no number.
        progress: Called after each batch with how many records were in it.
        device: As for `load`, where `adapter` is a folder.
        dtype: As for `load`.
        model: As for `load`.

    Returns:
        An answer for each record, in their order.

    Raises:
        UserError: An unknown task, a record without a field of the template, or what `load` raises.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> import peml
        >>> config = peml.LanguageModelConfig(tasks=["embedded:sentiment"], train_limit=20)
        >>> objective = config.build(total_steps=1, seed=0)
        >>> objective.reset(None, seed=0)  # LoRA as it starts; a run would train it now
        >>> with TemporaryDirectory() as folder:
        ...     objective.save(Path(folder))
        ...     [answer] = peml.predict(folder, [{"input": "Sentence: sam loved the salad."}])
        >>> [*answer.probabilities]
        ['negative', 'positive']
    """
    check_count("max_length", max_length)
    manifest = manifest_of(adapter)
    folder = adapter.folder if isinstance(adapter, Adapted) else Path(adapter)
    known = trained_task(manifest, task, folder)
    examples = questions(known, as_records(records))
    adapted = opened(adapter, device, dtype, model)
    adapted.check_heads([known.name])
    length = max_length or manifest.max_length
    collator = Collator(adapted.lm, max_length=length, longest=manifest.longest_answers)
    answers = answer_examples(collator, known, examples, heads=adapted.heads, progress=progress)
    for message in collator.truncation.messages():
        warn(message)
    if missing := sum(answer.prediction is None for answer in answers):
        warn(f"{known.name}: {missing} of {len(answers)} answers hold no number and are left empty")
    return [predicted(example, answer) for example, answer in zip(examples, answers, strict=True)]


def as_records(
    records: Sequence[Mapping[str, Any]] | Records | str | PathLike[str],
) -> Records:
    """Return records, read from a file if they are one.

    Raises:
        UserError: The file can't be read, or there is no record.
    """
    if isinstance(records, str | PathLike):
        records = read_files([Path(records)])
    elif not isinstance(records, Records):
        records = Records(_mappings(records), "the records")
    if not records.rows:
        raise UserError(f"{records.origin}: there is no record to answer")
    return records


def _mappings(records: object) -> list[Mapping[str, Any]]:
    if isinstance(records, Mapping) or not isinstance(records, Iterable):
        raise UserError(f"records: expected a file or a list of mappings, not {brief(records)}")
    given = [*records]
    for number, record in enumerate(given, start=1):
        if not isinstance(record, Mapping):
            raise UserError(f"records: number {number} is no mapping of fields: {brief(record)}")
    return given


def predicted(example: Example, answer: Answer) -> Predicted:
    """Return the answer to an example with the texts of its choices."""
    if not example.choices:
        return Predicted(answer.prediction)
    chosen = example.choices[int(answer.prediction or 0)]
    return Predicted(chosen, dict(zip(example.choices, answer.probabilities, strict=True)))


class Compared:
    """Answers beside the right ones, gathered while tasks are scored: see `evaluate_tasks`."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.answers: list[Predicted] = []

    def add(self, task: Task, examples: Sequence[Example], answers: Sequence[Answer]) -> None:
        """Take the answers to a task's examples."""
        self.rows += [
            {
                "task": task.name,
                "id": example.id,
                "prompt": example.prompt,
                "answer": example.answer,
            }
            for example in examples
        ]
        self.answers += [predicted(*pair) for pair in zip(examples, answers, strict=True)]

    def write(self, out: Path) -> None:
        """Write them as a JSONL, CSV or Parquet file.

        Raises:
            UserError: It can't be written.
        """
        columns = columns_of(self.answers, "choice")
        Results(out, Records(self.rows, "the answers"), [*columns]).write(columns)


def result_columns(kind: TaskKind) -> tuple[str, ...]:
    """Return the names of the columns that hold the answers to a kind of task."""
    chances = ("probability", "probabilities") if kind == "choice" else ()
    return ("prediction", *chances)


def columns_of(answers: Sequence[Predicted], kind: TaskKind) -> dict[str, list[Any]]:
    """Return answers as the columns of `result_columns`."""
    chances = [answer.probabilities for answer in answers]
    values: dict[str, list[Any]] = {
        "prediction": [answer.prediction for answer in answers],
        "probability": [max(each.values(), default=None) for each in chances],
        "probabilities": [each or None for each in chances],
    }
    return {name: values[name] for name in result_columns(kind)}
