"""Metrics by name, and what a task's score is.

Every metric is better when higher. All lie in [0, 1] but Matthews, Pearson and Spearman, which lie
in [-1, 1] and are 0 where the coefficient is undefined: the predictions (or the references) are
constant, or one of them is no finite number.
"""

from __future__ import annotations

import functools
import re
import string
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isclose, isfinite
from typing import Any, Literal, NamedTuple

import numpy as np

from peml.tasks import jackknife
from peml.tasks.spec import TaskKind
from prefixnas.base.errors import UserError, unknown
from prefixnas.base.extras import require

Predictions = Sequence[Any]

# A minus between digits or letters ("5-3", "answer-1") is no sign; a comma parts thousands alone.
_NUMBER = re.compile(
    r"(?:(?<![\w.)])[-\u2212])?"
    r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
    r"(?:[eE][+-]?[0-9]+)?"
)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def numbers_in(text: str) -> list[float]:
    """Return the numbers of a text in order; ``1,234`` is one number, ``1,2`` are two."""
    found = _NUMBER.findall(text)
    return [float(match.replace(",", "").replace("\u2212", "-")) for match in found]


def normalise(text: str) -> str:
    """Lower-case a text and drop punctuation, articles and extra white space, as SQuAD does.

    Signs, decimal points and symbols are lost: ``-5`` is ``5``, ``1.5`` is ``15``, ``C++`` is
    ``C``, and ``a`` is nothing.
    """
    bare = text.lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def accuracy(prediction: int, reference: int) -> float:
    """Whether the predicted choice is right."""
    return float(prediction == reference)


def f1(predictions: Predictions, references: Predictions) -> float:
    """F1 of the second choice (index 1) in a task with two choices."""
    from sklearn.metrics import f1_score

    return float(f1_score(references, predictions, pos_label=1, zero_division=0.0))


def macro_f1(predictions: Predictions, references: Predictions) -> float:
    """Unweighted mean of F1 over the choices that were predicted or are right somewhere."""
    from sklearn.metrics import f1_score

    return float(f1_score(references, predictions, average="macro", zero_division=0.0))


def matthews(predictions: Predictions, references: Predictions) -> float:
    """Matthews correlation coefficient; 0 for constant predictions."""
    from sklearn.metrics import matthews_corrcoef

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(matthews_corrcoef(references, predictions))


def pearson(predictions: Predictions, references: Predictions) -> float:
    """Pearson correlation; 0 for constant predictions."""
    from scipy.stats import pearsonr

    return _correlation(pearsonr, predictions, references)


def spearman(predictions: Predictions, references: Predictions) -> float:
    """Spearman rank correlation; 0 for constant predictions."""
    from scipy.stats import spearmanr

    return _correlation(spearmanr, predictions, references)


def _correlation(
    function: Callable[..., Any], predictions: Predictions, references: Predictions
) -> float:
    if len(set(predictions)) < 2 or len(set(references)) < 2:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = float(function(list(predictions), list(references)).statistic)
    return found if isfinite(found) else 0.0


def exact_match(prediction: str, reference: str) -> float:
    """Whether a text is equal to the reference, white space aside."""
    return float(prediction.split() == reference.split())


def squad_match(prediction: str, reference: str) -> float:
    """Whether a text is equal to the reference after `normalise`."""
    return float(normalise(prediction) == normalise(reference))


def number_match(prediction: str, reference: str) -> float:
    """Whether the last number of a text equals the reference's last number."""
    got, wanted = numbers_in(str(prediction)), numbers_in(str(reference))
    return float(bool(got and wanted and isclose(got[-1], wanted[-1], rel_tol=1e-9)))


def rouge(prediction: str, reference: str, *, kind: Literal["rouge1", "rouge2", "rougeL"]) -> float:
    """ROUGE F-measure with stemming: of words, of pairs of words, of the longest common sequence.

    Words are runs of ASCII letters and digits.
    """
    from torchmetrics.functional.text.rouge import rouge_score

    found = rouge_score(prediction, reference, use_stemmer=True, rouge_keys=kind)
    return float(found[f"{kind}_fmeasure"])


@dataclass(frozen=True)
class MeanMetric:
    """A metric that is the mean of a value of each example.

    Attributes:
        kind: The kind of tasks that it is for.
        each: From an example's prediction and reference to its value.
    """

    kind: TaskKind
    each: Callable[[Any, Any], float]

    def value(self, predictions: Predictions, references: Predictions) -> float:
        """Return the metric."""
        return sum(self._all(predictions, references)) / len(references)

    def measured(
        self, predictions: Predictions, references: Predictions
    ) -> tuple[float, jackknife.Floats]:
        """Return the metric, and what it is without each of at least two examples."""
        values = self._all(predictions, references)
        return sum(values) / len(values), jackknife.mean_without(values)

    def _all(self, predictions: Predictions, references: Predictions) -> list[float]:
        return [self.each(p, r) for p, r in zip(predictions, references, strict=True)]


@dataclass(frozen=True)
class WholeMetric:
    """A metric of all examples together.

    Attributes:
        kind: The kind of tasks that it is for.
        value: From predictions and references to the metric.
        without: The same, to what it is without each of at least two examples.
    """

    kind: TaskKind
    value: Callable[[Predictions, Predictions], float]
    without: Callable[[Predictions, Predictions], jackknife.Floats]

    def measured(
        self, predictions: Predictions, references: Predictions
    ) -> tuple[float, jackknife.Floats]:
        """Return the metric, and what it is without each of at least two examples."""
        return self.value(predictions, references), self.without(predictions, references)


def _of_choices(value: Callable[[Predictions, Predictions], float]) -> WholeMetric:
    return WholeMetric("choice", value, functools.partial(jackknife.choices_without, value))


_METRICS: Mapping[str, MeanMetric | WholeMetric] = {
    "accuracy": MeanMetric("choice", accuracy),
    "f1": _of_choices(f1),
    "macro_f1": _of_choices(macro_f1),
    "matthews": _of_choices(matthews),
    "pearson": WholeMetric("regression", pearson, jackknife.correlation_without),
    "spearman": WholeMetric("regression", spearman, jackknife.rank_correlation_without),
    "exact_match": MeanMetric("generation", exact_match),
    "squad_match": MeanMetric("generation", squad_match),
    "number_match": MeanMetric("generation", number_match),
    "rouge1": MeanMetric("generation", functools.partial(rouge, kind="rouge1")),
    "rouge2": MeanMetric("generation", functools.partial(rouge, kind="rouge2")),
    "rougeL": MeanMetric("generation", functools.partial(rouge, kind="rougeL")),
}
METRICS = tuple(_METRICS)

_BY_KIND: Mapping[TaskKind, tuple[str, ...]] = {
    "choice": ("accuracy",),
    "regression": ("pearson", "spearman"),
    "generation": ("exact_match",),
}
_BY_TASK = {
    "cola": ("matthews",),
    "mrpc": ("accuracy", "f1"),
    "qqp": ("accuracy", "f1"),
    "stsb": ("pearson", "spearman"),
    "cb": ("accuracy", "macro_f1"),
    "multirc": ("accuracy", "f1"),
    "gsm8k": ("number_match",),
    "cnn_dailymail": ("rouge1", "rouge2", "rougeL"),
    "xsum": ("rouge1", "rouge2", "rougeL"),
}


def default_metrics(name: str, kind: TaskKind) -> tuple[str, ...]:
    """Return the customary metrics of a task: by its name if that is known, else by its kind."""
    known = _BY_TASK.get(name, ())
    if known and all(_METRICS[metric].kind == kind for metric in known):
        return known
    return _BY_KIND[kind]


def check_metrics(names: Sequence[str], kind: TaskKind, n_choices: int, where: str) -> None:
    """Check that metrics exist and suit a task.

    Raises:
        UserError: An unknown metric, one of another kind of task, or F1 without two choices.
    """
    for name in names:
        if name not in _METRICS:
            raise unknown("metric", name, METRICS, where)
        if _METRICS[name].kind != kind:
            fitting = ", ".join(metric for metric in METRICS if _METRICS[metric].kind == kind)
            raise UserError(
                f"{where}: metric {name!r} is not for {kind} tasks (allowed: {fitting})"
            )
        if name.startswith("rouge"):
            require("torchmetrics", f"{where}: metric {name!r}")
        if name == "f1" and n_choices != 2:
            raise UserError(
                f"{where}: metric 'f1' needs exactly two choices, not {n_choices}; use 'macro_f1'"
            )


def compute(
    names: Sequence[str], predictions: Predictions, references: Predictions
) -> dict[str, float]:
    """Compute metrics of one task.

    Args:
        names: Metrics by name.
        predictions: One per example: index of a choice, number or text, by the task's kind.
        references: What is right, of the same length and type.
    """
    _check_lengths(predictions, references)
    return {name: _METRICS[name].value(predictions, references) for name in names}


class Measured(NamedTuple):
    """Metrics of one task, and how far their mean, `task_score`, hangs on single examples.

    Attributes:
        values: The metrics.
        standard_error: Of their mean; None for a single example.
        influences: How far each example moves it (`jackknife.influences`); none for a single one.
    """

    values: dict[str, float]
    standard_error: float | None = None
    influences: Sequence[float] = ()


def measure(names: Sequence[str], predictions: Predictions, references: Predictions) -> Measured:
    """Compute metrics of one task, and how far their mean scatters from example to example.

    Args:
        names: As for `compute`.
        predictions: As for `compute`.
        references: As for `compute`.
    """
    _check_lengths(predictions, references)
    if len(references) == 1:
        return Measured(compute(names, predictions, references))
    found = {name: _METRICS[name].measured(predictions, references) for name in names}
    without = np.mean([rest for _, rest in found.values()], axis=0)
    values = {name: value for name, (value, _) in found.items()}
    return Measured(values, jackknife.standard_error(without), jackknife.influences(without))


def _check_lengths(predictions: Predictions, references: Predictions) -> None:
    if len(predictions) != len(references) or not references:
        raise ValueError(f"{len(predictions)} predictions for {len(references)} references")


def constant_note(predictions: Predictions, values: Mapping[str, float]) -> str | None:
    """Return what to say beside the scores where all predictions are the same; else None."""
    if len(predictions) < 2 or len(set(predictions)) > 1:
        return None
    scores = ", ".join(f"{name} {value:.3f}" for name, value in values.items())
    return f"all {len(predictions)} predictions are the same; that alone scores {scores}"


def task_score(values: Mapping[str, float]) -> float:
    """Return a task's score: the mean of its metrics, as GLUE averages them."""
    return sum(values.values()) / len(values)
