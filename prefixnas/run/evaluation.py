"""Scores of a model: per task and metric, and the one number that counts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from prefixnas.base.errors import unknown

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
    """

    scores: Mapping[str, Mapping[str, float]]
    task_scores: Mapping[str, float]
    standard_errors: Mapping[str, float] = field(default_factory=dict)

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

    def to_json(self) -> dict[str, Any]:
        """Return plain dictionaries."""
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
        return cls(data["scores"], data["task_scores"], data.get("standard_errors", {}))


def check_metric(metric: str, tasks: Iterable[str], where: str = "objective") -> None:
    """Refuse a metric that is neither `average` nor a task.

    Raises:
        UserError: Names what there is.
    """
    known = [AVERAGE, *tasks]
    if metric not in known:
        raise unknown("metric", metric, known, where)
