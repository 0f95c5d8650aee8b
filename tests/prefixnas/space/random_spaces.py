"""Random search spaces for property tests."""

from __future__ import annotations

from itertools import count

from hypothesis import strategies as st

from prefixnas.space.nodes import Choice, Node, Op, Seq, Stack, Sum, with_sizes
from prefixnas.space.space import SearchSpace

OPERATIONS: list[Node] = [
    Op("linear"),
    Op("relu"),
    Op("tanh"),
    Op("layer_norm"),
    Op("identity"),
    Op("zero"),
    Op("dropout", 0.1),
    Op("linear", bias=False),
    Op("dropout", p=0.25),
]
"""All keep the width, so that they can be put together in any way."""


@st.composite
def spaces(draw: st.DrawFn, depth: int = 3) -> SearchSpace:
    """Draw a space with every kind of node in it, knobs among them."""
    names = count()
    sizes = {"few": draw(st.integers(1, 2))}

    def node(left: int) -> Node:
        kinds = ["op"] if left == 0 else ["op", "seq", "sum", "choice", "choice", "stack"]
        kind = draw(st.sampled_from(kinds))
        if kind == "seq":
            return Seq(*(node(left - 1) for _ in range(draw(st.integers(1, 2)))))
        if kind == "sum":
            return Sum(*(node(left - 1) for _ in range(draw(st.integers(1, 2)))))
        if kind == "stack":
            shared = draw(st.booleans())
            return Stack(layers(), node(left - 1), shared, f"stack{next(names)}")
        if kind == "choice":
            options = [node(left - 1) for _ in range(draw(st.integers(1, 3)))]
            unique = {with_sizes(option, sizes).label: option for option in options}
            decided_by = draw(st.sampled_from(["alpha", "trial"]))
            return Choice(f"key{next(names)}", list(unique.values()), decided_by)
        return draw(st.sampled_from(OPERATIONS))

    def layers() -> int | str | Choice:
        kind = draw(st.sampled_from(["number", "size", "choice"]))
        if kind == "choice":
            depths = draw(st.lists(st.integers(1, 2), min_size=1, unique=True))
            return Choice(f"depth{next(names)}", depths, "trial")
        return "few" if kind == "size" else draw(st.integers(1, 2))

    def knob() -> Node:
        options = draw(st.lists(st.sampled_from(["on", "off", "5"]), min_size=1, unique=True))
        choice = Choice(f"knob{next(names)}", options, draw(st.sampled_from(["alpha", "trial"])))
        return Stack(layers(), choice, name=f"site{next(names)}") if draw(st.booleans()) else choice

    knobs = [knob() for _ in range(draw(st.integers(0, 2)))]
    return SearchSpace("random", node(depth), knobs, sizes)
