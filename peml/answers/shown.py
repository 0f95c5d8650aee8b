"""Which answers of a model a report shows: a few examples of a task, and the confusion matrix."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prefixnas.run.answers import (
    MOST_CHARACTERS,
    MOST_EXAMPLES,
    MOST_LABELS,
    Answered,
    Answers,
)

if TYPE_CHECKING:
    from peml.answers.evaluation import Answer
    from peml.tasks.examples import Example
    from peml.tasks.task import Task


class Shown:
    """Collects what a report shows of an evaluation; `add` is a `peml.answers.evaluation.Seen`.

    Attributes:
        answers: By the task's name.
    """

    def __init__(self) -> None:
        self.answers: dict[str, Answers] = {}

    def add(self, task: Task, examples: Sequence[Example], answers: Sequence[Answer]) -> None:
        """Take the answers to a task's examples."""
        self.answers[task.name] = shown_answers(task, examples, answers)


def shown_answers(task: Task, examples: Sequence[Example], answers: Sequence[Answer]) -> Answers:
    """Return what a report shows of a task's answers.

    Args:
        task: The task.
        examples: What was asked; the same ones are shown whatever the answers, drawn by its name.
        answers: What a model said, in their order.

    Returns:
        Prompts without shots, and texts that are not too long, cut in the middle. There is a
        confusion matrix where all examples have the same choices, unless these are very many.
    """
    count = min(MOST_EXAMPLES, len(examples))
    drawn = sorted(random.Random(f"answers/{task.name}").sample(range(len(examples)), count))
    said = [_text(example, answer) for example, answer in zip(examples, answers, strict=True)]
    shown = [
        Answered(_short(examples[i].prompt), _short(examples[i].answer), _short(said[i]))
        for i in drawn
    ]
    labels = task.shared_choices
    if not labels or len(labels) > MOST_LABELS:
        return Answers(shown)
    place = {label: index for index, label in enumerate(labels)}
    counts = [[0] * len(labels) for _ in labels]
    for example, text in zip(examples, said, strict=True):
        counts[place[example.answer]][place[text]] += 1
    return Answers(shown, [_short(label) for label in labels], counts)


def _text(example: Example, answer: Answer) -> str:
    said = answer.prediction
    if said is None:
        return "(no number)"
    if example.choices and isinstance(said, int):
        return example.choices[said]
    return f"{said:.4g}" if isinstance(said, float) else str(said)


def _short(text: str) -> str:
    """Return a text that UTF-8 can hold, without its middle if it is too long."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    if len(text) <= MOST_CHARACTERS:
        return text
    half = (MOST_CHARACTERS - 3) // 2
    return f"{text[:half]} … {text[-half:]}"
