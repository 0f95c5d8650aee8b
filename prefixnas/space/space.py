"""The `SearchSpace` that a tree of nodes makes.

An `Architecture` is one option for each of its decisions (`prefixnas.space.decisions`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence

from prefixnas.base.errors import UserError, brief, unknown
from prefixnas.space.architecture import Architecture, decision_key
from prefixnas.space.decisions import Decision, decisions_of, refuse_doubles, sizes_of
from prefixnas.space.nodes import (
    Choice,
    Node,
    Op,
    Seq,
    Stack,
    as_node,
    children,
    with_sizes,
)

NO_MODULE = "none"
"""Name of the space without a module: the problem is trained alone."""

PLACES = 10_000
"""The most operations and choices in a space, all layers of its stacks counted."""


class SearchSpace:
    """A named tree of nodes, with the decisions that it holds.

    Args:
        name: Name of the space.
        root: The tree, in which stacks may name a size: `Stack("attention_layers", cell)`.
        knobs: Choices between names, or stacks of such choices, that the objective carries out
            instead of the network. The objective must know them by name.
        sizes: Numbers of layers by name. They are defaults: those of the objective win.

    Attributes:
        root: The tree with numbers in the place of sizes.
        knobs: The knobs likewise.
        sizes: The sizes.
        decisions: Those of the network, then those of the knobs.

    Raises:
        UserError: Two choices of one name in one cell, an unknown operation or size.

    Example:
        >>> cell = Seq("linear", Choice("act", ["relu", "tanh", "gelu"]), "layer_norm")
        >>> space = SearchSpace("small", Stack(2, cell))
        >>> [decision.name for decision in space.decisions]
        ['layer0/act', 'layer1/act']
        >>> space.size
        9
    """

    def __init__(
        self,
        name: str,
        root: Node | str,
        knobs: Sequence[Node] = (),
        sizes: Mapping[str, int] | None = None,
    ) -> None:
        self.name = name
        self.sizes = dict(sizes or {})
        node = as_node(root)
        self.declared: Node = Seq(node) if isinstance(node, Op) else node
        self.declared_knobs = tuple(knobs)
        try:
            self.root = with_sizes(self.declared, self.sizes)
            self.knobs = tuple(with_sizes(as_node(knob), self.sizes) for knob in knobs)
        except UserError as error:
            raise UserError(f"space {name!r}: {error}") from error
        places = sum(_places(node) for node in (self.root, *self.knobs))
        if places > PLACES:
            raise UserError(
                f"space {name!r}: more than {PLACES:,} operations and choices, all layers counted"
            )
        if self.empty and (self.declared != Seq("identity") or knobs):
            raise UserError(
                f"the name {NO_MODULE!r} is that of the space without a module; take another"
            )
        for knob in self.knobs:
            _check_knob(knob, name)
        self._check_operations(self.root)
        self.decisions: tuple[Decision, ...] = self._collect()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SearchSpace) and self._content() == other._content()

    def __hash__(self) -> int:
        return hash(self._content())

    def _content(self) -> tuple[object, ...]:
        sizes = tuple(sorted(self.sizes.items()))
        return self.name, self.declared, self.declared_knobs, sizes

    def __repr__(self) -> str:
        return f"SearchSpace({self.name!r}, {self.root.label})"

    def with_sizes(self, sizes: Mapping[str, int]) -> SearchSpace:
        """Return this space with other values for those of its sizes that `sizes` names."""
        values = {name: sizes.get(name, value) for name, value in self.sizes.items()}
        return SearchSpace(self.name, self.declared, self.declared_knobs, values)

    @property
    def empty(self) -> bool:
        """Whether it stands for no module: the problem is trained without one."""
        return self.name == NO_MODULE

    @property
    def size(self) -> int:
        """The number of different architectures."""
        return math.prod(
            count for node in (self.root, *self.knobs) for count in sizes_of(node, "").values()
        )

    @property
    def knob_decisions(self) -> tuple[Decision, ...]:
        """The decisions that the objective carries out."""
        return tuple(decision for decision in self.decisions if decision.knob)

    def active(self, choices: Mapping[str, str]) -> Iterator[Decision]:
        """Yield the decisions that count under `choices`, in the order of the tree."""
        for decision in self.decisions:
            if decision.active(choices):
                yield decision

    def choose(self, pick: Callable[[Decision], str]) -> Architecture:
        """Build an architecture by asking `pick` for each decision that counts."""
        choices: dict[str, str] = {}
        for decision in self.decisions:
            if decision.active(choices):
                choices[decision.name] = pick(decision)
        return self.validate(Architecture(choices, self.name))

    def sample(self, rng: random.Random) -> Architecture:
        """Draw every decision uniformly, from `rng` alone."""
        return self.choose(lambda decision: rng.choice(decision.options))

    def first(self, settings: Mapping[str, str] | None = None) -> Architecture:
        """Return the architecture of first options, with `settings` put in.

        Args:
            settings: Decision name, or its last part for all decisions of that key, to option.

        Raises:
            UserError: A setting names no decision or no option of it.
        """
        chosen = self.settle(settings or {})
        return self.choose(lambda decision: chosen.get(decision.name, decision.options[0]))

    def settle(self, settings: Mapping[str, str]) -> dict[str, str]:
        """Resolve `{"dropout": "dropout(0.3)"}` into an option per decision name.

        Raises:
            UserError: A setting names no decision or no option of it.
        """
        resolved: dict[str, str] = {}
        for key, option in settings.items():
            hits = [d for d in self.decisions if d.name == key or decision_key(d.name) == key]
            if not hits:
                raise unknown(
                    "decision", key, {d.name for d in self.decisions}, f"space {self.name!r}"
                )
            for decision in hits:
                if option not in decision.options:
                    raise unknown("option", option, decision.options, f"decision {decision.name!r}")
                resolved[decision.name] = option
        return resolved

    def mixed(self, settings: Mapping[str, str]) -> tuple[Decision, ...]:
        """Return the decisions that a supernet leaves to its alphas.

        What is set or stands inside an option that is not taken is none of them; choices by trial
        are held at their first option where nothing else is set.

        Raises:
            UserError: A setting names no decision or no option of it.
        """
        held, left = self.settle(settings), []
        for decision in self.decisions:
            conditions = decision.conditions
            if decision.name in held or any(held.get(n, of[0]) not in of for n, of in conditions):
                continue
            if decision.decided_by == "trial":
                held[decision.name] = decision.options[0]
            else:
                left.append(decision)
        return tuple(left)

    def enumerate(self) -> Iterator[Architecture]:
        """Yield every architecture once, in a fixed order."""
        for choices in self._enumerate({}, 0):
            yield Architecture(choices, self.name)

    def _enumerate(self, choices: dict[str, str], start: int) -> Iterator[dict[str, str]]:
        for index in range(start, len(self.decisions)):
            decision = self.decisions[index]
            if decision.active(choices):
                for option in decision.options:
                    yield from self._enumerate({**choices, decision.name: option}, index + 1)
                return
        yield choices

    def validate(self, architecture: Architecture) -> Architecture:
        """Return `architecture` if it belongs to this space.

        Raises:
            UserError: A decision is missing or unknown, or an option is not among the allowed.
        """
        where = f"architecture of space {self.name!r}"
        choices = architecture.choices
        active = {decision.name: decision for decision in self.active(choices)}
        for name, option in choices.items():
            if name not in active:
                raise unknown("decision", name, active, where)
            if option not in active[name].options:
                raise unknown("option", option, active[name].options, f"{where}, decision {name!r}")
        missing = [name for name in active if name not in choices]
        if missing:
            raise UserError(f"{where} lacks a choice for {missing[0]!r}")
        return architecture

    def _collect(self) -> tuple[Decision, ...]:
        refuse_doubles((self.root, *self.knobs), self.name)
        found = {decision.name: decision for decision in decisions_of(self.root, "", (), False)}
        for knob in self.knobs:
            found |= {decision.name: decision for decision in decisions_of(knob, "", (), True)}
        return tuple(found.values())

    def _check_operations(self, node: Node) -> None:
        from prefixnas.space.ops import OPS, try_op

        for op in {repr(op): op for op in _operations(node)}.values():
            if op.name not in OPS:
                raise unknown("operation", op.name, OPS.names(), f"space {self.name!r}")
            try_op(op.name, op.args, dict(op.kwargs))


def counted(size: int) -> str:
    """Return a number of architectures as it is shown: of one with many digits, the power of 10."""
    return f"{size:,}" if size < 10**18 else f"about 10^{math.log10(size):.0f}"


def dropout_under_alpha(space: SearchSpace) -> list[str]:
    """Return the keys of alpha choices whose options differ in their dropout rates.

    The alpha gradient cannot choose a rate: in evaluation mode it is zero, in training mode the
    lowest rate always wins, though training a child from scratch does not favour it.
    """

    def rates(node: Node) -> tuple[str, ...]:
        own = (node.label,) if isinstance(node, Op) and node.name == "dropout" else ()
        return own + tuple(rate for child in children(node) for rate in rates(child))

    def visit(node: Node) -> Iterator[str]:
        differ = len({rates(child) for child in children(node)}) > 1
        if isinstance(node, Choice) and node.decided_by == "alpha" and differ:
            yield node.key
        for child in children(node):
            yield from visit(child)

    return list(dict.fromkeys(visit(space.root)))


def _operations(node: Node) -> Iterator[Op]:
    if isinstance(node, Op):
        yield node
    for child in children(node):
        yield from _operations(child)


def _places(node: Node) -> int:
    """Count what has to be built of a node, without building it: each layer of a stack counts."""
    inside = 1 + sum(_places(child) for child in children(node))
    return inside * max(node.depths) if isinstance(node, Stack) else inside


def _check_knob(node: Node, space: str) -> None:
    """Refuse a knob that is more than choices between names, or a stack of such choices."""
    if isinstance(node, Choice):
        for option in node.options:
            if not isinstance(option, Op) or option.label != option.name:
                raise UserError(
                    f"space {space!r}: the options of knob {node.key!r} must be names or numbers, "
                    f"not {brief(option.label)}"
                )
    elif isinstance(node, Stack | Seq):
        for child in children(node):
            _check_knob(child, space)
    else:
        raise UserError(
            f"space {space!r}: a knob is a choice, or a stack of choices, not {brief(node.label)}"
        )
