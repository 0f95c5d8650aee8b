"""How far a score hangs on single examples: what it is without each of them.

The delete-one jackknife draws nothing at random, so that a run which goes on after an interruption
finds the same standard errors, and it needs few calls of a metric: leaving out one of several
examples with the same prediction and reference comes to the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Predictions = Sequence[Any]
Value = Callable[[Predictions, Predictions], float]

BLOCK = 1 << 20
"""Numbers that a block of rows holds."""


def standard_error(without: Floats) -> float | None:
    """Return the jackknife's standard error of a statistic.

    Args:
        without: What it is without each example, `[examples]`.

    Returns:
        None for fewer than two examples, which say nothing of how far they scatter.
    """
    if len(without) < 2:
        return None
    return float(np.sqrt((len(without) - 1) * np.square(without - without.mean()).mean()))


def influences(without: Floats) -> list[float]:
    """Return how far each example moves a statistic: `[examples]`, about 0, with six digits.

    For a mean these are the distances of the values from it. The standard error is the root of
    their squares' sum over n (n - 1), and that of the difference of two statistics of the same
    examples is the same of the differences of their influences.

    Args:
        without: What it is without each of at least two examples, `[examples]`.
    """
    moved = (len(without) - 1) * (without.mean() - without)
    return [float(f"{value:.6g}") for value in moved]


def mean_without(values: Sequence[float]) -> Floats:
    """Return the mean without each value: `[examples]`, at least two, to `[examples]`."""
    given = np.asarray(values, dtype=np.float64)
    without: Floats = (given.sum() - given) / (len(given) - 1)
    return without


def choices_without(value: Value, predictions: Predictions, references: Predictions) -> Floats:
    """Return a metric of choices without each example, with one call for each pair of choices."""
    pairs = np.stack([np.asarray(predictions), np.asarray(references)])
    _, first, place = np.unique(pairs, axis=1, return_index=True, return_inverse=True)
    less = (np.delete(pairs, index, axis=1) for index in first)
    found: Floats = np.array([value(*pair) for pair in less])[place.reshape(-1)]
    return found


def correlation_without(predictions: Predictions, references: Predictions) -> Floats:
    """Return Pearson's correlation without each example; 0 where it is undefined."""
    x, y = (np.asarray(values, dtype=np.float64) for values in (predictions, references))
    return np.concatenate([_correlate(x[None], y[None], rows) for rows in _blocks(len(x))])


def rank_correlation_without(predictions: Predictions, references: Predictions) -> Floats:
    """Return Spearman's rank correlation without each example; 0 where it is undefined."""
    x, y = (np.asarray(values, dtype=np.float64) for values in (predictions, references))
    return np.concatenate(
        [_correlate(_ranks(x, rows), _ranks(y, rows), rows) for rows in _blocks(len(x))]
    )


def _blocks(count: int) -> Iterator[NDArray[np.intp]]:
    size = max(1, BLOCK // count)
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count))


def _ranks(values: Floats, rows: NDArray[np.intp]) -> Floats:
    """Return the ranks among all examples but one: `[examples]` to `[rows, examples]`.

    An example that is left out lowers by 1 what is above it, and by a half what ties with it.
    """
    from scipy.stats import rankdata

    left = values[rows, None]
    ranks: Floats = rankdata(values) - (values > left) - 0.5 * (values == left)
    return ranks


def _correlate(x: Floats, y: Floats, rows: NDArray[np.intp]) -> Floats:
    """Return the correlation of `x` and `y`, `[rows or 1, examples]`, without example `rows[i]`."""
    there = np.ones((len(rows), x.shape[1]))
    there[np.arange(len(rows)), rows] = 0
    parts = []
    constant = _constant(x, there) | _constant(y, there)
    with np.errstate(all="ignore"):  # what is no finite number makes no finite coefficient
        for values in (x, y):
            centred = there * (values - (there * values).sum(1, keepdims=True) / (x.shape[1] - 1))
            parts.append(centred / np.abs(centred).max(1, keepdims=True).clip(1e-300))
        spread = np.sqrt(np.square(parts[0]).sum(1) * np.square(parts[1]).sum(1))
        found = (parts[0] * parts[1]).sum(1) / np.where(constant, 1.0, spread)
    return np.where(constant | ~np.isfinite(found), 0.0, found)


def _constant(values: Floats, there: Floats) -> NDArray[np.bool_]:
    """Tell whether all values of a row are the same, but for the one that is not there."""
    low = np.where(there > 0, values, np.inf).min(1)
    high = np.where(there > 0, values, -np.inf).max(1)
    same: NDArray[np.bool_] = low == high
    return same
