"""Means with confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SURE = 0.95
"""How often an interval holds the mean."""

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
    from scipy.stats import t  # slow to import

    data = np.asarray(values, dtype=np.float64)
    mean = float(data.mean())
    if len(data) < 2:
        return Estimate(mean, -math.inf, math.inf, len(data))
    reach = float(t.ppf((1 + SURE) / 2, len(data) - 1) * data.std(ddof=1) / math.sqrt(len(data)))
    return Estimate(mean, mean - reach, mean + reach, len(data))
