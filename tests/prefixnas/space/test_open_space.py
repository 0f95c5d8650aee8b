"""What is left open of a space when some decisions are held."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefixnas.space.nodes import Choice, Seq
from prefixnas.space.open_space import OpenSpace
from prefixnas.space.space import SearchSpace
from tests.prefixnas.space.random_spaces import spaces

NESTED = SearchSpace(
    "nested",
    Seq(
        Choice("outer", ["identity", Seq("linear", Choice("inner", ["relu", "tanh", "gelu"]))]),
        Choice("end", ["identity", "layer_norm"]),
    ),
)


@st.composite
def held_spaces(draw: st.DrawFn) -> tuple[SearchSpace, dict[str, str]]:
    space = draw(spaces())
    held = {
        d.name: draw(st.sampled_from(d.options)) for d in space.decisions if draw(st.booleans())
    }
    return space, held


@settings(deadline=None, max_examples=50)
@given(held_spaces(), st.integers(0, 1000))
def test_everything_it_yields_is_of_the_space_and_keeps_what_is_held(
    made: tuple[SearchSpace, dict[str, str]], seed: int
) -> None:
    space, held = made
    rest = OpenSpace(space, held)
    allowed = {
        item for item in space.enumerate() if all(held.get(n, o) == o for n, o in item.items())
    }
    listed = list(rest.enumerate())
    assert len(listed) == len(set(listed)) == rest.count(10**6)
    assert set(listed) == allowed
    rng = random.Random(seed)
    drawn = rest.sample(rng)
    assert drawn in allowed
    mutant = rest.mutate(drawn, rng)
    assert mutant in allowed
    assert (mutant == drawn) == (not [d for d in rest.decisions if d.name in drawn])
    some = set(rng.sample(listed, len(listed) - 1))
    assert {rest.unseen(some, rng)} == allowed - some


def test_a_mutation_changes_one_active_decision_and_draws_what_comes_to_count() -> None:
    rest, rng = OpenSpace(NESTED), random.Random(0)
    start = rest.choose(lambda d: {"outer": "identity"}.get(d.name, "layer_norm"))
    mutants = {rest.mutate(start, rng) for _ in range(200)}
    assert len(mutants) == 4  # another end, or the other option with any inner one
    for mutant in mutants:
        changed = [name for name in start if mutant[name] != start[name]]
        assert len(changed) == 1


def test_nothing_unseen_is_left() -> None:
    rest = OpenSpace(NESTED)
    with pytest.raises(ValueError, match="all architectures of space 'nested' are known"):
        rest.unseen(set(rest.enumerate()), random.Random(0))


def test_count_stops_at_its_limit() -> None:
    assert OpenSpace(NESTED).count(5) == 5
    assert OpenSpace(NESTED).count(100) == 8
    assert OpenSpace(NESTED, {"outer": "identity"}).count(100) == 2
