"""The Gaussian-process surrogate."""

from __future__ import annotations

import math
import random
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefixnas.multitrial.strategy import Scored
from prefixnas.space.architecture import Architecture
from prefixnas.space.nodes import Choice, Seq, Stack
from prefixnas.space.open_space import OpenSpace
from prefixnas.space.space import SearchSpace
from prefixnas.strategies.surrogate import ACQUISITIONS, Surrogate

OPTIONS = ["relu", "tanh", "gelu", "silu"]
SPACE = SearchSpace("s", Stack(3, Seq("linear", Choice("f", OPTIONS))))
LARGE = SearchSpace("l", Stack(9, Seq("linear", Choice("f", OPTIONS))))


def hits(architecture: Architecture) -> float:
    return float(sum(option == "tanh" for option in architecture.values()))


@settings(deadline=None, max_examples=40)
@given(st.floats(-3, 3), st.floats(0.05, 3), st.floats(-3, 3))
def test_acquisitions_against_numerical_integration(
    mean: float, spread: float, best: float
) -> None:
    scores = mean + spread * np.linspace(-9, 9, 100_001)
    density = np.exp(-(((scores - mean) / spread) ** 2) / 2) / (spread * math.sqrt(2 * math.pi))
    step = scores[1] - scores[0]
    expected = {
        "ei": float((np.maximum(scores - best, 0) * density).sum() * step),
        "pi": float(((scores > best) * density).sum() * step),
        "ucb": mean + 2 * spread,
    }
    for name, function in ACQUISITIONS.items():
        found = float(function(np.array([mean]), np.array([spread]), best)[0])
        assert found == pytest.approx(expected[name], abs=2e-3)


@pytest.mark.parametrize("acquisition", sorted(ACQUISITIONS))
def test_it_finds_the_best_of_an_additive_score_in_a_third_of_the_space(acquisition: Any) -> None:
    strategy = Surrogate(trials=20, startup=5, acquisition=acquisition)
    for seed in range(4):
        tried = strategy.explore(OpenSpace(SPACE), hits, seed)
        assert max(trial.score for trial in tried) == 3


def test_it_climbs_in_a_space_that_is_too_large_to_list() -> None:
    tried = Surrogate(trials=25, pool=60).explore(OpenSpace(LARGE), hits, 0)
    assert len({trial.architecture for trial in tried}) == 25
    best = max(trial.score for trial in tried[5:])
    assert best >= 8  # a random architecture is that good once in 9,000 draws


def test_it_takes_what_promises_most() -> None:
    """After all but two are known, the one that shares the good option is next."""
    space = SearchSpace("p", Stack(2, Seq("linear", Choice("f", OPTIONS))))
    rest = OpenSpace(space)
    left = [
        Architecture({"layer0/f": "tanh", "layer1/f": "tanh"}, "p"),
        Architecture({"layer0/f": "gelu", "layer1/f": "silu"}, "p"),
    ]
    told = [Scored(item, hits(item)) for item in space.enumerate() if item not in left]
    for seed in range(5):
        assert Surrogate().propose(rest, told, random.Random(seed)) == left[0]


def test_scores_that_say_nothing_do_no_harm() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for value in (0.5, float("nan"), -1e30):
            tried = Surrogate(trials=9).explore(OpenSpace(SPACE), lambda _, v=value: v, 0)
            assert len(tried) == 9


def test_a_trial_that_diverged_counts_as_the_worst_of_the_others() -> None:
    """Wherever the scores' zero lies."""
    rest = OpenSpace(SPACE)
    drawn = random.Random(0).sample(list(SPACE.enumerate()), 6)
    for shift in (0.9, -0.9, 0.0):
        scores = [shift + hits(item) / 100 for item in drawn[:-1]]
        told = [Scored(item, score) for item, score in zip(drawn, scores, strict=False)]
        lost, worst = (Scored(drawn[-1], score) for score in (float("-inf"), min(scores)))
        for seed in range(4):
            proposed = [
                Surrogate().propose(rest, [*told, last], random.Random(seed))
                for last in (lost, worst)
            ]
            assert proposed[0] == proposed[1]
