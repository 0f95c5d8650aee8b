"""Means with confidence intervals."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

import numpy as np
from numpy.typing import NDArray

SURE = 0.95
"""How often an interval holds the mean."""

NORMAL = NormalDist().inv_cdf((1 + SURE) / 2)
"""How many standard errors such an interval reaches to either side, for many examples: 1.96."""

NOISY = 0.5
"""An estimate whose interval reaches further than this share of it is called noisy."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its confidence interval.

    Attributes:
        mean: The mean.
        low: Lower end of the interval.
        high: Upper end.
        count: Measurements it is made of.
    """

    mean: float
    low: float
    high: float
    count: int

    @property
    def noisy(self) -> bool:
        """Whether the interval is too wide to conclude from."""
        return not self.high - self.mean <= NOISY * abs(self.mean)

    def __str__(self) -> str:
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"


def estimate(values: Sequence[float] | NDArray[np.float64]) -> Estimate:
    """Return the mean with Student's interval; an endless one for fewer than two values."""
    from scipy.stats import ttest_1samp  # slow to import

    data = np.asarray(values, dtype=np.float64)
    mean = float(data.mean())
    if len(data) < 2:
        return Estimate(mean, -math.inf, math.inf, len(data))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of values that are all equal
        low, high = ttest_1samp(data, 0.0).confidence_interval(SURE)
    return Estimate(mean, float(low), float(high), len(data))


@dataclass(frozen=True)
class Difference(Estimate):
    """A mean difference of scores, paired by seed, with its interval.

    Attributes:
        relative: Relative to the other's mean (Yang et al. 2020); None where that is 0.
    """

    relative: float | None

    @property
    def verdict(self) -> str:
        """In words: "above", "below", "within the spread", "too few seeds" (fewer than three).

        Two differences are easily equal, where scores are shares of few examples.
        """
        if self.count < 3:
            return "too few seeds"
        return "above" if self.low > 0 else "below" if self.high < 0 else "within the spread"


def paired(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Difference | None:
    """Compare scores by seed, on the seeds that both have; None: there are none."""
    seeds = [seed for seed in ours if seed in theirs]
    if not seeds:
        return None
    found = estimate([ours[seed] - theirs[seed] for seed in seeds])
    basis = fmean(theirs[seed] for seed in seeds)
    return Difference(**vars(found), relative=found.mean / abs(basis) if basis else None)


def mean_and_spread(values: Iterable[float | None]) -> tuple[float | None, float | None]:
    """Return mean and standard deviation (of a sample) of what is there; None for too few."""
    there = [value for value in values if value is not None]
    return fmean(there) if there else None, stdev(there) if len(there) > 1 else None
