"""Standard errors over the examples, against formulas, brute force and an independent bootstrap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from peml.tasks import jackknife, metrics

CHOICE = ["accuracy", "f1", "macro_f1", "matthews"]
NUMBERS = ["pearson", "spearman"]
TEXTS = ["exact_match", "squad_match", "number_match", "rouge1", "rouge2", "rougeL"]


def by_force(names: Sequence[str], predicted: Sequence[Any], wanted: Sequence[Any]) -> float:
    """The standard error from a call of the metrics for every example that is left out."""
    without = [
        metrics.task_score(
            metrics.compute(
                names, [*predicted[:i], *predicted[i + 1 :]], [*wanted[:i], *wanted[i + 1 :]]
            )
        )
        for i in range(len(wanted))
    ]
    n = len(wanted)
    return float(np.sqrt((n - 1) / n * sum((w - np.mean(without)) ** 2 for w in without)))


pairs_of_choices = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=2)
pairs_of_numbers = st.lists(
    st.tuples(st.integers(-3, 3), st.floats(-1e3, 1e3)), min_size=2, max_size=30
)
pairs_of_texts = st.lists(
    st.tuples(*[st.sampled_from(["a 1", "the cat 1", "cat sat 2", "b", ""])] * 2), min_size=2
)


@settings(max_examples=30, deadline=None)
@given(pairs_of_choices, st.sampled_from([[name] for name in CHOICE] + [CHOICE[:2], CHOICE]))
def test_of_choices(pairs: list[tuple[int, int]], names: list[str]) -> None:
    agrees(names, pairs)


@settings(max_examples=30, deadline=None)
@given(pairs_of_texts, st.sampled_from([[name] for name in TEXTS] + [TEXTS]))
def test_of_texts(pairs: list[tuple[str, str]], names: list[str]) -> None:
    agrees(names, pairs)


@settings(max_examples=40, deadline=None)
@given(pairs_of_numbers, st.sampled_from([*([name] for name in NUMBERS), NUMBERS]))
def test_of_numbers(pairs: list[tuple[int, float]], names: list[str]) -> None:
    agrees(names, pairs)


def agrees(names: list[str], pairs: Sequence[tuple[Any, Any]]) -> None:
    predicted, wanted = [p for p, _ in pairs], [w for _, w in pairs]
    values, error, moved = metrics.measure(names, predicted, wanted)
    root = np.sqrt(np.square(moved).sum() / (len(pairs) * (len(pairs) - 1)))
    assert root == pytest.approx(error, rel=1e-4, abs=1e-7)
    assert values == metrics.compute(names, predicted, wanted)
    assert error is not None and np.isfinite(error)
    assert error == pytest.approx(by_force(names, predicted, wanted), rel=1e-5, abs=1e-7)


def test_blocks_do_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    predicted, wanted = generator.normal(size=(2, 50)).round(1).tolist()
    whole = metrics.measure(NUMBERS, predicted, wanted)
    monkeypatch.setattr(jackknife, "BLOCK", 150)  # three rows
    assert metrics.measure(NUMBERS, predicted, wanted) == whole


def test_that_of_a_mean_is_the_sample_s() -> None:
    predicted, wanted = [1, 0, 1, 1, 0], [1, 1, 1, 0, 0]
    _, error, _ = metrics.measure(["accuracy"], predicted, wanted)
    assert error == pytest.approx(np.std([1, 0, 1, 0, 1], ddof=1) / np.sqrt(5))


@pytest.mark.parametrize("name", metrics.METRICS)
def test_constant_predictions_scatter_only_with_the_references(name: str) -> None:
    same: list[Any] = ["x 1"] * 6 if name in TEXTS else [1] * 6
    for wanted in (same, [*same[:5], "y 2" if name in TEXTS else 0]):
        values, error, _ = metrics.measure([name], same, wanted)
        assert error is not None and np.isfinite(error)
        if wanted is same or values[name] == 0:
            assert error == 0
    assert metrics.measure([name], same[:1], same[:1])[1] is None


def test_a_metric_is_called_once_for_equal_pairs() -> None:
    """A task of any size needs as many calls as there are pairs of choices."""
    calls = []

    def value(predictions: Any, references: Any) -> float:
        calls.append(len(references))
        return float(np.mean(np.asarray(predictions) == np.asarray(references)))

    without = jackknife.choices_without(value, [0, 1, 1, 0] * 50, [0, 1, 0, 0] * 50)
    assert calls == [199] * 3
    assert sorted(set(without)) == pytest.approx([149 / 199, 150 / 199])


@pytest.mark.parametrize("name", [*CHOICE, *NUMBERS])
def test_a_bootstrap_finds_the_same(name: str) -> None:
    """Simulated examples, resampled by scipy: the two estimates are near each other."""
    generator = np.random.default_rng(3)
    if name in NUMBERS:
        wanted = generator.normal(size=250)
        predicted = wanted + generator.normal(size=250)
    else:
        wanted = (generator.random(250) < 0.35).astype(float)
        predicted = np.where(generator.random(250) < 0.8, wanted, 1 - wanted)
    found = stats.bootstrap(
        (predicted, wanted),
        lambda p, w: metrics.compute([name], list(p), list(w))[name],
        paired=True,
        vectorized=False,
        n_resamples=400,
        method="percentile",
        rng=generator,
    )
    _, error, _ = metrics.measure([name], predicted.tolist(), wanted.tolist())
    assert error == pytest.approx(found.standard_error, rel=0.2)


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Matthews on samples of a known population: 95 of 100 intervals, give or take."""
    generator = np.random.default_rng(5)
    population = [(1, 1)] * 3 + [(0, 0)] * 4 + [(1, 0), (0, 1), (0, 1)]
    truth = metrics.compute(["matthews"], *zip(*population, strict=True))["matthews"]  # type: ignore[arg-type]
    inside = 0
    for _ in range(200):
        sample = [population[i] for i in generator.integers(len(population), size=200)]
        values, error, _ = metrics.measure(["matthews"], *zip(*sample, strict=True))  # type: ignore[arg-type]
        assert error is not None
        inside += abs(values["matthews"] - truth) <= 1.96 * error
    assert 180 <= inside <= 199


def test_of_an_accuracy_an_example_moves_it_by_its_distance() -> None:
    assert metrics.measure(["accuracy"], [1, 0, 1, 1], [1, 1, 1, 1]).influences == (
        pytest.approx([0.25, -0.75, 0.25, 0.25])
    )
    assert metrics.measure(["accuracy"], [1], [1]).influences == ()


def test_the_difference_of_two_f1_scores_scatters_as_a_paired_bootstrap_finds() -> None:
    generator = np.random.default_rng(1)
    wanted = generator.integers(0, 2, 200)
    ours, theirs = (
        np.where(generator.random(200) < share, wanted, 1 - wanted) for share in (0.9, 0.8)
    )
    theirs = np.where(generator.random(200) < 0.5, ours, theirs)  # they agree on many
    moved = [
        np.array(metrics.measure(["f1"], said.tolist(), wanted.tolist()).influences)
        for said in (ours, theirs)
    ]
    error = np.sqrt(np.square(moved[0] - moved[1]).sum() / (200 * 199))
    rows = generator.integers(0, 200, (400, 200))
    drawn = [
        metrics.f1(ours[row], wanted[row]) - metrics.f1(theirs[row], wanted[row]) for row in rows
    ]
    assert error == pytest.approx(np.std(drawn), rel=0.12)
