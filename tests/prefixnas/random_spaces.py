"""Random search spaces for property tests."""

from __future__ import annotations

from itertools import count

from hypothesis import strategies as st

from prefixnas.space import Choice, Node, Op, SearchSpace, Seq, Stack, Sum

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
    """Draw a space of up to about 300 architectures, with every kind of node in it."""
    names = count()

    def node(left: int) -> Node:
        kinds = ["op"] if left == 0 else ["op", "seq", "sum", "choice", "choice", "stack"]
        kind = draw(st.sampled_from(kinds))
        if kind == "seq":
            return Seq(*(node(left - 1) for _ in range(draw(st.integers(1, 2)))))
        if kind == "sum":
            return Sum(*(node(left - 1) for _ in range(draw(st.integers(1, 2)))))
        if kind == "stack":
            shared = draw(st.booleans())
            return Stack(draw(st.integers(1, 2)), node(left - 1), shared, f"stack{next(names)}")
        if kind == "choice":
            options = [node(left - 1) for _ in range(draw(st.integers(1, 3)))]
            unique = {option.label: option for option in options}
            decided_by = draw(st.sampled_from(["alpha", "trial"]))
            return Choice(f"key{next(names)}", list(unique.values()), decided_by)
        return draw(st.sampled_from(OPERATIONS))

    return SearchSpace("random", node(depth))
