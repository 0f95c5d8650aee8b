"""The likeliest architectures, against brute force, and how trial options are dealt to them."""

from __future__ import annotations

import random
from collections import Counter
from itertools import islice

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from prefixnas.multitrial.shortlist import Probabilities, deal, most_likely, shortlist, widest
from prefixnas.space.architecture import Architecture
from prefixnas.space.loading import load_space
from prefixnas.space.nodes import Choice, Seq, Stack
from prefixnas.space.space import SearchSpace
from tests.prefixnas.space.random_spaces import spaces

FEW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@st.composite
def weighted(draw: st.DrawFn) -> tuple[SearchSpace, Probabilities, dict[str, str]]:
    """A space, probabilities of some of its decisions (zeros among them), and held options."""
    space = draw(spaces())
    assume(space.size <= 200)
    table: dict[str, dict[str, float]] = {}
    held: dict[str, str] = {}
    for decision in space.decisions:
        kind = draw(st.sampled_from(["known", "known", "unknown", "held"]))
        if kind == "held":
            held[decision.name] = draw(st.sampled_from(decision.options))
        elif kind == "known":
            numbers = [draw(st.sampled_from([0, 1, 1, 2, 5])) for _ in decision.options]
            numbers[draw(st.integers(0, len(numbers) - 1))] += 1
            shares = [number / sum(numbers) for number in numbers]
            table[decision.name] = dict(zip(decision.options, shares, strict=True))
    return space, table, held


def probability(
    space: SearchSpace, table: Probabilities, held: dict[str, str], architecture: Architecture
) -> float:
    product = 1.0
    for decision in space.active(architecture):
        option = architecture[decision.name]
        if decision.name in held:
            product *= option == held[decision.name]
        elif decision.name in table:
            product *= table[decision.name][option]
        else:
            product /= len(decision.options)
    return product


@FEW
@given(weighted())
def test_order_is_that_of_brute_force(
    drawn: tuple[SearchSpace, Probabilities, dict[str, str]],
) -> None:
    space, table, held = drawn
    found = list(most_likely(space, table, held))
    expected = {a: probability(space, table, held, a) for a in space.enumerate()}
    assert set(found) == {a for a, share in expected.items() if share > 0}
    assert len(found) == len(set(found))
    shares = [expected[architecture] for architecture in found]
    assert shares == pytest.approx(sorted(shares, reverse=True))


def test_a_few_of_a_large_space_are_found_at_once() -> None:
    """3 ** 60 architectures that are all alike: no other order than best first gets there."""
    space = SearchSpace("large", Stack(60, Seq("linear", Choice("f", ["relu", "tanh", "gelu"]))))
    table = {f"layer{i}/f": {"relu": 0.34, "tanh": 0.33, "gelu": 0.33} for i in range(60)}
    first, *others = islice(most_likely(space, table), 200)
    assert set(first.values()) == {"relu"}
    assert all(Counter(other.values())["relu"] >= 58 for other in others)


def test_ties_fall_to_the_first_options() -> None:
    space = SearchSpace("s", Stack(2, Seq("linear", Choice("f", ["relu", "tanh"]))))
    assert list(most_likely(space, {})) == list(space.enumerate())


def deep() -> SearchSpace:
    cell = Seq("linear", Choice("f", ["relu", "tanh"]), Choice("d", ["identity", "zero"], "trial"))
    return SearchSpace("deep", Stack(Choice("depth", [2, 4, 3], "trial"), cell))


def test_a_supernet_is_held_where_most_decisions_count() -> None:
    held = widest(deep(), {"layer1/d": "zero"})
    assert held["depth"] == "4"
    assert held["layer1/d"] == "zero"
    assert {held[f"layer{i}/d"] for i in (0, 2, 3)} == {"identity"}
    assert widest(deep(), {"depth": "3"})["depth"] == "3"


@pytest.mark.parametrize("count", [1, 2, 5, 6, 9])
def test_dealt_settings_differ_and_are_balanced(count: int) -> None:
    hands = deal(deep(), {}, count, random.Random(0))
    assert len(hands) == min(count, 6)
    assert len({tuple(hand.items()) for hand in hands}) == len(hands)
    assert hands[0] == widest(deep(), {})
    for hand in hands:
        assert len({hand[f"layer{i}/d"] for i in range(4)}) == 1  # one key, one option
    if count >= 6:
        assert set(Counter(hand["depth"] for hand in hands).values()) == {2}


def test_a_large_deal_shows_every_option() -> None:
    space = load_space("wide")
    hands = deal(space, {}, 4, random.Random(1))
    for key in ("length", "start", "width", "depth"):
        assert len({hand[key] for hand in hands}) >= 2
    hands = deal(space, {}, 10, random.Random(1))
    for key in ("length", "start", "width", "depth"):
        assert min(Counter(hand[key] for hand in hands).values()) >= 3


@FEW
@given(weighted(), st.integers(1, 12))
def test_candidates_are_different_and_possible(
    drawn: tuple[SearchSpace, Probabilities, dict[str, str]], count: int
) -> None:
    space, table, held = drawn
    by_alpha = {decision.name for decision in space.decisions if decision.decided_by == "alpha"}
    table = {name: options for name, options in table.items() if name in by_alpha}
    found = shortlist(space, table, held, count, random.Random(0))
    assert len(found) == len(set(found)) <= count
    assert all(probability(space, table, held, a) > 0 for a in found)
    best = next(most_likely(space, table, widest(space, held)))
    assert found[0] == best


def test_without_choices_by_trial_the_candidates_are_the_likeliest() -> None:
    space = SearchSpace("s", Stack(2, Seq("linear", Choice("f", ["relu", "tanh", "gelu"]))))
    table = {
        f"layer{i}/f": {"relu": 0.5 - i / 10, "tanh": 0.3 + i / 10, "gelu": 0.2} for i in (0, 1)
    }
    found = shortlist(space, table, {}, 5, random.Random(0))
    assert found == list(islice(most_likely(space, table), 5))


def test_candidates_cross_likely_alphas_with_trial_options() -> None:
    found = shortlist(deep(), {}, {}, 9, random.Random(0))
    assert len(found) == 9
    assert {a["depth"] for a in found} == {"2", "3", "4"}
    assert {a["layer0/d"] for a in found} == {"identity", "zero"}
    assert len({tuple(a[f"layer{i}/f"] for i in (0, 1)) for a in found}) > 1


def test_all_there_are_is_enough() -> None:
    space = SearchSpace("s", Seq("linear", Choice("f", ["relu", "tanh"])))
    assert len(shortlist(space, {"f": {"relu": 1.0, "tanh": 0.0}}, {}, 5, random.Random(0))) == 1
    assert len(shortlist(space, {}, {}, 5, random.Random(0))) == 2
