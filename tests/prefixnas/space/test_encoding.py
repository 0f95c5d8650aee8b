"""Architectures as rows of numbers."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from prefixnas.space.encoding import encode
from prefixnas.space.loading import load_space
from prefixnas.space.nodes import Choice, Seq
from prefixnas.space.open_space import OpenSpace
from prefixnas.space.space import SearchSpace
from tests.prefixnas.space.test_open_space import held_spaces

WIDE = OpenSpace(load_space("wide"))


@settings(deadline=None, max_examples=50)
@given(held_spaces())
def test_different_architectures_have_different_rows(
    made: tuple[SearchSpace, dict[str, str]],
) -> None:
    rest = OpenSpace(*made)
    listed = list(rest.enumerate())
    rows = encode(rest, listed)
    assert rows.shape == (len(listed), sum(len(d.options) + 1 for d in rest.decisions))
    assert len({row.tobytes() for row in rows}) == len(listed)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000))
def test_the_distance_counts_the_decisions_that_differ(seed: int) -> None:
    rng, rest = random.Random(seed), WIDE
    one, other = rest.sample(rng), rest.sample(rng)
    rows = encode(rest, [one, other])
    differ = sum(one.get(d.name) != other.get(d.name) for d in rest.decisions)
    assert np.square(rows[0] - rows[1]).sum() == 2 * differ


def test_a_row() -> None:
    inner = Seq("linear", Choice("inner", ["relu", "tanh"]))
    space = SearchSpace("nested", Choice("outer", ["identity", inner]))
    rows = encode(OpenSpace(space), space.enumerate())
    # outer: identity, linear + inner, not counting; inner: relu, tanh, not counting
    assert rows.tolist() == [[1, 0, 0, 0, 0, 1], [0, 1, 0, 1, 0, 0], [0, 1, 0, 0, 1, 0]]
