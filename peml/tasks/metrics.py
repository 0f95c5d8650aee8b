"""Metrics by name, and what a task's score is.

Every metric is better when higher. All lie in [0, 1] but Matthews, Pearson and Spearman, which lie
in [-1, 1] and are 0 where the predictions (or the references) are constant and the coefficient is
undefined.
"""

from __future__ import annotations

import re
import string
import warnings
from collections.abc import Callable, Mapping, Sequence
from math import isclose
from typing import Any

from peml.tasks.spec import TaskKind
from prefixnas.base.errors import UserError, unknown

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


def accuracy(predictions: Predictions, references: Predictions) -> float:
    """Share of predicted choices that are right."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(references, predictions))


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
        return float(function(list(predictions), list(references)).statistic)


def exact_match(predictions: Predictions, references: Predictions) -> float:
    """Share of texts equal to the reference, white space aside."""
    pairs = zip(predictions, references, strict=True)
    return float(sum(p.split() == r.split() for p, r in pairs) / len(references))


def squad_match(predictions: Predictions, references: Predictions) -> float:
    """Share of texts equal to the reference after `normalise`."""
    pairs = zip(predictions, references, strict=True)
    return sum(normalise(p) == normalise(r) for p, r in pairs) / len(references)


def number_match(predictions: Predictions, references: Predictions) -> float:
    """Share of texts whose last number equals the reference's last number."""
    hits = 0
    for prediction, reference in zip(predictions, references, strict=True):
        got, wanted = numbers_in(str(prediction)), numbers_in(str(reference))
        hits += bool(got and wanted and isclose(got[-1], wanted[-1], rel_tol=1e-9))
    return hits / len(references)


def rouge_l(predictions: Predictions, references: Predictions) -> float:
    """Mean ROUGE-L F-measure, with stemming, as `rouge_score` computes it."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    pairs = zip(predictions, references, strict=True)
    return float(sum(scorer.score(r, p)["rougeL"].fmeasure for p, r in pairs) / len(references))


_METRICS: Mapping[str, tuple[TaskKind, Callable[[Predictions, Predictions], float]]] = {
    "accuracy": ("choice", accuracy),
    "f1": ("choice", f1),
    "macro_f1": ("choice", macro_f1),
    "matthews": ("choice", matthews),
    "pearson": ("regression", pearson),
    "spearman": ("regression", spearman),
    "exact_match": ("generation", exact_match),
    "squad_match": ("generation", squad_match),
    "number_match": ("generation", number_match),
    "rougeL": ("generation", rouge_l),
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
}


def default_metrics(name: str, kind: TaskKind) -> tuple[str, ...]:
    """Return the customary metrics of a task: by its name if that is known, else by its kind."""
    known = _BY_TASK.get(name, ())
    if known and all(_METRICS[metric][0] == kind for metric in known):
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
        if _METRICS[name][0] != kind:
            fitting = ", ".join(metric for metric, (of, _) in _METRICS.items() if of == kind)
            raise UserError(
                f"{where}: metric {name!r} is not for {kind} tasks (allowed: {fitting})"
            )
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
    if len(predictions) != len(references) or not references:
        raise ValueError(f"{len(predictions)} predictions for {len(references)} references")
    return {name: _METRICS[name][1](predictions, references) for name in names}


def constant_note(predictions: Predictions, values: Mapping[str, float]) -> str | None:
    """Return what to say beside the scores where all predictions are the same; else None."""
    if len(predictions) < 2 or len(set(predictions)) > 1:
        return None
    scores = ", ".join(f"{name} {value:.3f}" for name, value in values.items())
    return f"all {len(predictions)} predictions are the same; that alone scores {scores}"


def task_score(values: Mapping[str, float]) -> float:
    """Return a task's score: the mean of its metrics, as GLUE averages them."""
    return sum(values.values()) / len(values)
