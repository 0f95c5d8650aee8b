"""The contracts pass what is sound and name what is broken."""

from __future__ import annotations

import dataclasses
import random
import subprocess
import sys
from collections.abc import Callable

import pytest

from prefixnas.network.relaxations import RELAXATIONS, Relaxation
from prefixnas.oneshot.level import LEVELS
from prefixnas.oneshot.update import UPDATES
from prefixnas.run.objective import Objective
from prefixnas.run.strategy import Strategy
from prefixnas.space.nodes import Choice, Seq, Stack
from prefixnas.space.space import SearchSpace
from prefixnas.strategies.darts import Darts
from prefixnas.strategies.fixed import Fixed
from prefixnas.strategies.random import RandomSearch
from prefixnas.testing import (
    BrokenPromise,
    ObjectiveContract,
    RelaxationContract,
    StrategyCheck,
    StrategyContract,
    ToyObjective,
    check_objective,
    check_relaxation,
    check_strategy,
    shipped_spaces,
)
from tests.prefixnas.testing import broken

SPACE = SearchSpace(
    "small",
    Stack(
        2,
        Seq(
            "linear",
            Choice("activation", ["relu", "tanh", "gelu", "silu"]),
            Choice("end", ["identity", "layer_norm"], "trial"),
        ),
    ),
)
GRID_KEYS = ("level", "update", "relaxation")
SHIPPED = {space.name: space for space in shipped_spaces()}
GRID = [
    Darts(level=level, update=update, relaxation=relaxation)
    for level in LEVELS.names()
    for update in UPDATES.names()
    for relaxation in RELAXATIONS.names()
]
SEARCHES = [
    # Every second cell of the grid by default, the others among the slow tests.
    *(pytest.param(s, marks=[pytest.mark.slow] * (i % 2)) for i, s in enumerate(GRID)),
    Darts(selection="perturbation", tune_steps=1),
    Darts(selection="perturbation", random_order=True, alpha_warmup=1.0),
    Darts(settled_records=1, settled_within=1.0, log_every=2, prune_to=0.3),
    RandomSearch(),
    RandomSearch(trials=3),
]
ON_SHIPPED = [
    *(strategy for strategy in GRID if strategy.level == "joint"),
    Darts(level="bilevel", relaxation="gumbel"),
    Darts(level="second-order", relaxation="one-path"),
    RandomSearch(trials=3),
]


def label(item: object) -> str:
    if isinstance(item, Darts):
        given = {f.name: getattr(item, f.name) for f in dataclasses.fields(item)}
        shown = [str(v) for k, v in given.items() if k in GRID_KEYS or v != getattr(Darts, k)]
        return "-".join(["darts", *shown])
    return f"random-{item.trials}" if isinstance(item, RandomSearch) else str(item)


# The whole contract, as an outside author uses it


class TestJointDarts(StrategyContract):
    def strategy(self) -> Strategy:
        return Darts()


class TestRandomSearch(StrategyContract):
    def strategy(self) -> Strategy:
        return RandomSearch(trials=3)

    def spaces(self) -> list[SearchSpace]:
        return [SPACE]


class TestToyObjective(ObjectiveContract):
    def objective(self) -> Objective:
        return ToyObjective()


class TestGumbel(RelaxationContract):
    def relaxation(self) -> Relaxation:
        return RELAXATIONS.get("gumbel")()


# Everything shipped, on every shipped space


@pytest.mark.parametrize("name", RELAXATIONS.names())
def test_shipped_relaxation(name: str) -> None:
    check_relaxation(RELAXATIONS.get(name)())


@pytest.mark.parametrize("strategy", SEARCHES, ids=label)
def test_shipped_strategy_keeps_every_promise(strategy: Strategy) -> None:
    check_strategy(strategy, spaces=[SPACE], other_process=False)


@pytest.mark.parametrize("space", sorted(SHIPPED))
@pytest.mark.parametrize("strategy", ON_SHIPPED, ids=label)
def test_shipped_strategy_on_shipped_space(strategy: Strategy, space: str) -> None:
    check = StrategyCheck(strategy, SHIPPED[space])
    check.architecture()
    check.alphas()
    if strategy in ON_SHIPPED[-3:] and space != "paper":  # which `TestJointDarts` resumes
        check.resume()


def test_sampling_search_in_another_process() -> None:
    StrategyCheck(Darts(level="bilevel", relaxation="gumbel-hard"), SPACE).other_process()


def test_fixed_architecture_keeps_every_promise() -> None:
    check_strategy(Fixed(), spaces=[SPACE], other_process=False)


# Broken on purpose

BROKEN: list[tuple[Strategy, str]] = [
    (broken.Spendthrift(), "budget"),
    (broken.Uncounted(), "budget"),
    (broken.Overrun(), "budget"),
    (broken.GlobalRandom(), "same seed"),
    (broken.Moody(), "same seed"),
    (broken.Unknown(), "architecture"),
    (broken.Mismatch(), "architecture"),
    (broken.Behind(), "architecture"),
    (broken.Frozen(), "alphas"),
    (broken.Still(), "alphas"),
    (broken.StarvedSearch(), "alphas"),
    (broken.Forgetful(), "resume"),
    (broken.Gradients(), ""),
    (broken.Peeking(), "selection"),
    (broken.Validating(), "selection"),
    (broken.Stubborn(), "settings"),
    (broken.OneSeed(), "other seed"),
]


@pytest.mark.parametrize(
    ("strategy", "promise"), BROKEN, ids=[type(strategy).__name__ for strategy, _ in BROKEN]
)
def test_broken_strategy_is_caught_by_name(strategy: Strategy, promise: str) -> None:
    random.seed(0)
    if not promise:  # the sound one that the broken ones are variants of
        check_strategy(strategy, spaces=[SPACE], other_process=False)
        return
    with pytest.raises(BrokenPromise) as caught:
        check_strategy(strategy, spaces=[SPACE], other_process=False)
    assert caught.value.promise == promise
    assert repr(promise) in str(caught.value)


def test_hash_order_is_caught_in_another_process() -> None:
    check = StrategyCheck(broken.HashOrder(), SHIPPED["default"])
    check.same_seed()
    with pytest.raises(BrokenPromise, match="PYTHONHASHSEED") as caught:
        check.other_process()
    assert caught.value.promise == "process"


def test_options_must_be_plain_values() -> None:
    with pytest.raises(BrokenPromise) as caught:
        StrategyCheck(broken.Opaque(), SPACE).other_process()
    assert caught.value.promise == "options"


def test_objective_must_be_importable_for_another_process() -> None:
    with pytest.raises(BrokenPromise, match="top of a module"):
        StrategyCheck(RandomSearch(), SPACE, lambda: ToyObjective()).other_process()


@pytest.mark.parametrize(
    ("relaxation", "promise"),
    [
        (broken.Unnormalised(), "sum to one"),
        (broken.Noisy(), "evaluation"),
        (broken.PythonRandom(), "seed"),
        (broken.Reversed(), "argmax"),
        (broken.Blurring(), "argmax"),
        (broken.Cut(), "gradient"),
        (broken.Starved(), "gradient"),
    ],
    ids=lambda item: item if isinstance(item, str) else type(item).__name__,
)
def test_broken_relaxation_is_caught_by_name(relaxation: Relaxation, promise: str) -> None:
    with pytest.raises(BrokenPromise) as caught:
        check_relaxation(relaxation, spaces=[SPACE])
    assert caught.value.promise == promise


@pytest.mark.parametrize(
    ("make", "promise"),
    [
        (broken.Seedless, "reset"),
        (broken.Ignoring, "width"),
        (broken.Shaken, "evaluate"),
        (broken.HalfTrained, "gradients"),
        (broken.Overwriting, "backward"),
        (broken.Shared, "splits"),
        (broken.Amnesiac, "state"),
        (broken.Restarting, "replace"),
        (broken.Renamed, "alone"),
        (broken.Pickled, "save"),
    ],
)
def test_broken_objective_is_caught_by_name(make: Callable[[], Objective], promise: str) -> None:
    with pytest.raises(BrokenPromise) as caught:
        check_objective(make)
    assert caught.value.promise == promise


def test_contracts_do_not_need_pytest() -> None:
    code = "import prefixnas.testing, sys; assert 'pytest' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
