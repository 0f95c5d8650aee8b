"""Paired differences: intervals, verdicts, relative gains."""

from __future__ import annotations

import pytest

from prefixnas.base.estimates import paired


def test_the_interval_of_a_paired_difference() -> None:
    ours, theirs = {0: 0.8, 1: 0.9, 2: 0.7, 9: 0.1}, {0: 0.7, 1: 0.6, 2: 0.65, 8: 0.9}
    found = paired(ours, theirs)
    assert found is not None and found.count == 3
    half = 4.302653 * 0.0175**0.5 / 3**0.5  # the table's t for 2 degrees of freedom, 97.5 %
    assert (found.low, found.high) == pytest.approx((0.15 - half, 0.15 + half))
    assert found.mean == pytest.approx(0.15)
    assert found.relative == pytest.approx(0.15 / 0.65)
    assert found.verdict == "within the spread"


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [
        ({0: 0.5, 1: 0.51, 2: 0.49}, "above"),
        ({0: 0.1, 1: 0.11, 2: 0.09}, "below"),
        ({0: 0.3, 1: 0.51, 2: 0.19}, "within the spread"),
        ({0: 0.9}, "too few seeds"),
        ({0: 0.9, 1: 0.9}, "too few seeds"),
    ],
)
def test_verdicts(ours: dict[int, float], verdict: str) -> None:
    found = paired(ours, {0: 0.3, 1: 0.3, 2: 0.3})
    assert found is not None and found.verdict == verdict


def test_scores_below_zero_gain_when_they_rise() -> None:
    found = paired({0: -0.5}, {0: -1.0})
    assert found is not None and found.relative == pytest.approx(0.5)
    assert paired({0: 1.0}, {1: 1.0}) is None
    zero = paired({0: 1.0}, {0: 0.0})
    assert zero is not None and zero.relative is None
