"""Scores of a model: per task and metric, and the one number that counts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from prefixnas.base.errors import unknown
from prefixnas.run.answers import Answers

Split = Literal["train", "selection", "validation", "test"]
"""`train` moves weights, `selection` moves alphas and chooses, `validation` is only reported, and
`test`, where there is one, once a model is trained."""

UNTOUCHED, MIXTURE, ARGMAX, TRAINED = "untouched", "mixture", "argmax child", "trained child"
"""What every run scores on the split "validation": columns of its table, names of its events."""

SOFT = "softmax mixture"
"""The mixture weighted by its probabilities, where its relaxation evaluates another one."""

BASELINE, EQUAL_WEIGHTS = "baseline", "baseline at equal weights"
"""The phases in which models without a module are trained, for a column each."""

AVERAGE = "average"
"""The metric that is the mean over the tasks; every other one is a task's name."""


@dataclass(frozen=True)
class Evaluation:
    """Scores of one model on one split; higher is better.

    Attributes:
        scores: Per task, each metric's value.
        task_scores: Per task, the one number that counts.
        standard_errors: Per task, how far that number scatters with the examples that it was taken
            on; a task may be missing.
        influences: Per task, how far each example moves that number (the jackknife's: of a mean,
            the distances of the values from it), by which two models are compared on the same
            examples; a task may be missing.
        answers: Per task, what was answered, as far as a report shows it.
    """

    scores: Mapping[str, Mapping[str, float]]
    task_scores: Mapping[str, float]
    standard_errors: Mapping[str, float] = field(default_factory=dict)
    influences: Mapping[str, Sequence[float]] = field(
        default_factory=dict, repr=False, compare=False
    )
    answers: Mapping[str, Answers] = field(default_factory=dict, repr=False, compare=False)

    @property
    def score(self) -> float:
        """The mean over the tasks."""
        return sum(self.task_scores.values()) / len(self.task_scores)

    @property
    def standard_error(self) -> float | None:
        """That of `score`, as the tasks have no examples in common; None if a task has none."""
        if not self.standard_errors.keys() >= self.task_scores.keys():
            return None
        squares = (self.standard_errors[task] ** 2 for task in self.task_scores)
        return math.sqrt(sum(squares)) / len(self.task_scores)

    def of(self, metric: str) -> float:
        """Return the mean (`AVERAGE`), or the score of the task of that name.

        Raises:
            UserError: There is no such task.
        """
        if metric == AVERAGE:
            return self.score
        check_metric(metric, self.task_scores)
        return self.task_scores[metric]

    def less(self, other: Evaluation) -> Evaluation:
        """Return how much better this is than another, task by task, on the same examples.

        Its standard errors are those of the paired difference: what both answer alike does not
        scatter. A task that only one of them has is left out.
        """
        tasks = [task for task in self.task_scores if task in other.task_scores]
        scores = {
            task: {name: value - other.scores[task][name] for name, value in found.items()}
            for task in tasks
            if (found := self.scores[task]).keys() == other.scores[task].keys()
        }
        means = {task: self.task_scores[task] - other.task_scores[task] for task in tasks}
        moved: dict[str, Sequence[float]] = {}
        for task in tasks:
            ours, theirs = self.influences.get(task, ()), other.influences.get(task, ())
            if len(ours) == len(theirs) > 1:
                moved[task] = [our - their for our, their in zip(ours, theirs, strict=True)]
        errors = {task: _standard_error(found) for task, found in moved.items()}
        return Evaluation(scores, means, errors, moved)

    def to_json(self) -> dict[str, Any]:
        """Return plain dictionaries, without the single examples."""
        errors = {
            "standard_errors": dict(self.standard_errors),
            "standard_error": self.standard_error,
        }
        return {
            "scores": {task: dict(values) for task, values in self.scores.items()},
            "task_scores": dict(self.task_scores),
            "score": self.score,
            **(errors if self.standard_errors else {}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Evaluation:
        """Undo `to_json`."""
        return cls(
            data["scores"],
            data["task_scores"],
            data.get("standard_errors", {}),
            data.get("influences", {}),
        )


def _standard_error(influences: Sequence[float]) -> float:
    count = len(influences)
    return math.sqrt(math.fsum(moved * moved for moved in influences) / (count * (count - 1)))


def differences(columns: Mapping[str, Evaluation | None]) -> list[dict[str, Any]]:
    """Return how far the columns of a run are apart, each time on the same examples.

    Args:
        columns: Scores on the split "validation", by label.

    Returns:
        Per pair, `of` and `over` (labels), the number of `examples` by task, and the differences
        as `Evaluation.to_json` has scores: of the trained child over every other column, of every
        column over the untouched model, and of the mixture over the argmax child.
    """
    there = {label: column for label, column in columns.items() if column is not None}
    pairs = [(TRAINED, label) for label in there]
    pairs += [*((label, UNTOUCHED) for label in there), (MIXTURE, ARGMAX)]
    found = []
    for of, over in dict.fromkeys(pairs):
        if of == over or not {of, over} <= there.keys():
            continue
        less = there[of].less(there[over])
        if less.task_scores:
            counts = {task: len(moved) for task, moved in less.influences.items()}
            found.append({"of": of, "over": over, "examples": counts, **less.to_json()})
    return found


def check_metric(metric: str, tasks: Iterable[str], where: str = "objective") -> None:
    """Refuse a metric that is neither `average` nor a task.

    Raises:
        UserError: Names what there is.
    """
    known = [AVERAGE, *tasks]
    if metric not in known:
        raise unknown("metric", metric, known, where)
