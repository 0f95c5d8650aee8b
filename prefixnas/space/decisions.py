"""The decisions that a tree of nodes holds, and how many architectures they make.

Every `Choice` becomes one or more *decisions*. `Stack(6, cell)` gives each layer its own, named
`layer0/activation`, `layer1/activation`, ...; with `shared=True` all layers follow one decision,
`activation`, while their weights stay their own. A choice inside an option of another choice counts
only when that option is taken, and is named `outer=option/inner`; the decisions of a layer count
only when the stack is that deep.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from prefixnas.base.errors import UserError
from prefixnas.space.nodes import Choice, DecidedBy, Node, Stack, children, option_scope


@dataclass(frozen=True)
class Decision:
    """One choice at one place of the space.

    Attributes:
        name: Unique name, `layer0/activation`.
        options: Labels of the candidates.
        decided_by: "alpha" or "trial".
        conditions: Decisions and the options of theirs with which this decision counts.
        knob: Whether the objective carries it out, instead of the network.
    """

    name: str
    options: tuple[str, ...]
    decided_by: DecidedBy
    conditions: tuple[tuple[str, tuple[str, ...]], ...] = ()
    knob: bool = False

    def active(self, choices: Mapping[str, str]) -> bool:
        """Tell whether this decision counts under `choices`."""
        return all(choices.get(name) in options for name, options in self.conditions)


def decisions_of(
    node: Node, scope: str, conditions: tuple[tuple[str, tuple[str, ...]], ...], knob: bool
) -> Iterator[Decision]:
    """Yield the decisions of a node, in the order of the tree; shared layers repeat theirs.

    Args:
        node: The node.
        scope: What their names begin with, `layer0/`.
        conditions: With which decisions they count.
        knob: Whether the objective carries them out.
    """
    if isinstance(node, Choice):
        name = scope + node.key
        labels = tuple(option.label for option in node.options)
        yield Decision(name, labels, node.decided_by, conditions, knob)
        for option in node.options:
            inner = (*conditions, (name, (option.label,)))
            yield from decisions_of(option, option_scope(scope, node, option), inner, knob)
    elif isinstance(node, Stack):
        if isinstance(node.layers, Choice):
            yield from decisions_of(node.layers, scope, conditions, knob)
        for index, layer_scope in enumerate(node.scopes(scope)):
            inner = conditions
            if isinstance(node.layers, Choice) and not node.shared:
                deep = tuple(str(depth) for depth in node.depths if depth > index)
                if len(deep) < len(node.depths):
                    inner = (*conditions, (scope + node.layers.key, deep))
            yield from decisions_of(node.cell, layer_scope, inner, knob)
    else:
        for child in children(node):
            yield from decisions_of(child, scope, conditions, knob)


def refuse_doubles(nodes: Sequence[Node], space: str) -> None:
    """Refuse two places of one scope with one name: only shared layers may follow one decision."""
    seen: set[str] = set()

    def visit(node: Node, scope: str) -> None:
        if isinstance(node, Choice):
            if scope + node.key in seen:
                raise UserError(
                    f"space {space!r}: two choices are called {scope + node.key!r}; give them "
                    "different keys, or their stacks different names"
                )
            seen.add(scope + node.key)
            for option in node.options:
                visit(option, option_scope(scope, node, option))
        elif isinstance(node, Stack):
            if isinstance(node.layers, Choice):
                visit(node.layers, scope)
            for layer_scope in dict.fromkeys(node.scopes(scope)):
                visit(node.cell, layer_scope)
        else:
            for child in children(node):
                visit(child, scope)

    for node in nodes:
        visit(node, "")


def sizes_of(node: Node, scope: str) -> dict[str, int]:
    """Map each decision outside of conditions to its number of variants."""
    if isinstance(node, Choice):
        variants = (sizes_of(option, option_scope(scope, node, option)) for option in node.options)
        return {scope + node.key: sum(math.prod(variant.values()) for variant in variants)}
    sizes: dict[str, int] = {}
    if isinstance(node, Stack):
        layers = [sizes_of(node.cell, layer_scope) for layer_scope in node.scopes(scope)]
        if isinstance(node.layers, Choice) and not node.shared:
            each = [math.prod(layer.values()) for layer in layers]
            return {scope + node.layers.key: sum(math.prod(each[:depth]) for depth in node.depths)}
        if isinstance(node.layers, Choice):
            sizes[scope + node.layers.key] = len(node.depths)
        return sizes | {name: count for layer in layers for name, count in layer.items()}
    for child in children(node):
        sizes |= sizes_of(child, scope)
    return sizes
