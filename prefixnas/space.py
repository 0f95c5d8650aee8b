"""The search-space algebra: `Op`, `Seq`, `Sum`, `Choice`, `Stack`, and the `SearchSpace` they make.

A space is a tree of these nodes. Every `Choice` becomes one or more *decisions*; an
`Architecture` is one option for each. `Stack(6, cell)` gives each layer its own decisions, named
`layer0/activation`, `layer1/activation`, ...; with `shared=True` all layers follow one decision,
`activation`, while their weights stay their own. A choice inside an option of another choice
counts only when that option is taken, and is named `outer=option/inner`.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from prefixnas.architecture import Architecture
from prefixnas.errors import UserError, unknown

DecidedBy = Literal["alpha", "trial"]


class Node(ABC):
    """Base of the nodes of a space."""

    @property
    @abstractmethod
    def label(self) -> str:
        """A short text that tells this node from its fellow options."""


@dataclass(frozen=True)
class Op(Node):
    """One operation of the registry, with its parameters: `Op("dropout", 0.1)`."""

    name: str
    args: tuple[Any, ...]
    kwargs: tuple[tuple[str, Any], ...]

    def __init__(self, name: str, /, *args: Any, **kwargs: Any) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "args", args)
        object.__setattr__(self, "kwargs", tuple(sorted(kwargs.items())))

    @property
    def label(self) -> str:
        """`relu`, `dropout(0.1)`, `linear(bias=False)`."""
        given = [*map(str, self.args), *(f"{key}={value}" for key, value in self.kwargs)]
        return f"{self.name}({', '.join(given)})" if given else self.name


@dataclass(frozen=True)
class Seq(Node):
    """Nodes one after the other. Strings stand for operations without parameters."""

    nodes: tuple[Node, ...]

    def __init__(self, *nodes: Node | str) -> None:
        if not nodes:
            raise UserError("a seq needs at least one node")
        object.__setattr__(self, "nodes", tuple(as_node(node) for node in nodes))

    @property
    def label(self) -> str:
        """The labels of the parts, joined by `+`."""
        return "+".join(node.label for node in self.nodes)


@dataclass(frozen=True)
class Sum(Node):
    """The sum of several branches of one input: `Sum("identity", cell)` is a skip connection."""

    branches: tuple[Node, ...]

    def __init__(self, *branches: Node | str) -> None:
        if not branches:
            raise UserError("a sum needs at least one branch")
        object.__setattr__(self, "branches", tuple(as_node(node) for node in branches))

    @property
    def label(self) -> str:
        """`sum(identity, linear+relu)`."""
        return f"sum({', '.join(node.label for node in self.branches)})"


@dataclass(frozen=True)
class Choice(Node):
    """A place where one of several options is taken.

    Args:
        key: Name of the decision; unique in its cell.
        options: The candidates; strings stand for operations.
        decided_by: "alpha": by the gradient of the relaxed choice. "trial": by strategies that
            train candidates apart, or by hand; a supernet holds the first option, or the one set.
    """

    key: str
    options: tuple[Node, ...]
    decided_by: DecidedBy

    def __init__(
        self,
        key: str,
        options: list[Node | str] | tuple[Node | str, ...],
        decided_by: str = "alpha",
    ) -> None:
        where = f"choice {key!r}"
        if not options:
            raise UserError(f"{where} has no options; give at least one")
        if decided_by not in ("alpha", "trial"):
            raise unknown("decided_by", decided_by, ["alpha", "trial"], where)
        nodes = tuple(as_node(option) for option in options)
        labels = [node.label for node in nodes]
        if len(set(labels)) < len(labels):
            double = next(label for label in labels if labels.count(label) > 1)
            raise UserError(f"{where} lists the option {double!r} twice")
        object.__setattr__(self, "key", key)
        object.__setattr__(self, "options", nodes)
        object.__setattr__(self, "decided_by", decided_by)

    @property
    def label(self) -> str:
        """The key, which stands for whatever is chosen."""
        return f"<{self.key}>"


@dataclass(frozen=True)
class Stack(Node):
    """`layers` copies of a cell, each with weights of its own.

    Args:
        layers: Number of copies, at least 1.
        cell: The node that is repeated.
        shared: One set of decisions for all layers instead of one per layer.
        name: Prefix of the layers' names; two stacks in one space need different names.
    """

    layers: int
    cell: Node
    shared: bool = False
    name: str = "layer"

    def __init__(
        self, layers: int, cell: Node | str, shared: bool = False, name: str = "layer"
    ) -> None:
        if isinstance(layers, bool) or not isinstance(layers, int) or layers < 1:
            raise UserError(
                f"stack {name!r}: layers must be a whole number of at least 1, not {layers!r}"
            )
        object.__setattr__(self, "layers", layers)
        object.__setattr__(self, "cell", as_node(cell))
        object.__setattr__(self, "shared", shared)
        object.__setattr__(self, "name", name)

    @property
    def label(self) -> str:
        """`stack(2, linear+relu)`."""
        shared = ", shared" if self.shared else ""
        return f"stack({self.layers}, {self.cell.label}{shared})"

    def scopes(self, scope: str) -> list[str]:
        """Return the scope of each layer's decisions inside `scope`."""
        if self.shared:
            return [scope] * self.layers
        return [f"{scope}{self.name}{index}/" for index in range(self.layers)]


def as_node(item: Node | str) -> Node:
    """Return `item` as a node; a string is an operation without parameters."""
    if isinstance(item, Node):
        return item
    if isinstance(item, str):
        return Op(item)
    raise UserError(
        f"{item!r} is no node of a search space; use Op, Seq, Sum, Choice, Stack or a name"
    )


@dataclass(frozen=True)
class Decision:
    """One choice at one place of the space.

    Attributes:
        name: Unique name, `layer0/activation`.
        options: Labels of the candidates.
        decided_by: "alpha" or "trial".
        conditions: Decisions and options that must hold for this decision to count.
    """

    name: str
    options: tuple[str, ...]
    decided_by: DecidedBy
    conditions: tuple[tuple[str, str], ...] = ()

    def active(self, choices: Mapping[str, str]) -> bool:
        """Tell whether this decision counts under `choices`."""
        return all(choices.get(name) == option for name, option in self.conditions)


class SearchSpace:
    """A named tree of nodes, with the decisions that it holds.

    Args:
        name: Name of the space.
        root: The tree.

    Raises:
        UserError: Two choices of one name in one cell, or an unknown operation.
    """

    def __init__(self, name: str, root: Node | str) -> None:
        self.name = name
        node = as_node(root)
        self.root: Node = Seq(node) if isinstance(node, Op) else node
        self.decisions: tuple[Decision, ...] = self._collect()
        self._check_operations(self.root)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SearchSpace) and (self.name, self.root) == (other.name, other.root)

    def __hash__(self) -> int:
        return hash((self.name, self.root))

    def __repr__(self) -> str:
        return f"SearchSpace({self.name!r}, {self.root.label})"

    @property
    def size(self) -> int:
        """The number of different architectures."""
        factors = _sizes(self.root, "")
        total = 1
        for count in factors.values():
            total *= count
        return total

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
            hits = [d for d in self.decisions if d.name == key or d.name.rsplit("/", 1)[-1] == key]
            if not hits:
                raise unknown(
                    "decision", key, {d.name for d in self.decisions}, f"space {self.name!r}"
                )
            for decision in hits:
                if option not in decision.options:
                    raise unknown("option", option, decision.options, f"decision {decision.name!r}")
                resolved[decision.name] = option
        return resolved

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
        found: dict[str, Decision] = {}
        for decision in _decisions(self.root, "", ()):
            known = found.setdefault(decision.name, decision)
            if known is not decision and known != decision:
                raise UserError(
                    f"space {self.name!r}: two different choices are called {decision.name!r}; "
                    "give them different keys, or their stacks different names"
                )
        _refuse_doubles(self.root, self.name)
        return tuple(found.values())

    def _check_operations(self, node: Node) -> None:
        from prefixnas.ops import OPS

        if isinstance(node, Op):
            if node.name not in OPS.names():
                raise unknown("operation", node.name, OPS.names(), f"space {self.name!r}")
        else:
            for child in children(node):
                self._check_operations(child)


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


def children(node: Node) -> tuple[Node, ...]:
    """Return the nodes directly under `node`."""
    if isinstance(node, Seq):
        return node.nodes
    if isinstance(node, Sum):
        return node.branches
    if isinstance(node, Choice):
        return node.options
    if isinstance(node, Stack):
        return (node.cell,)
    return ()


def option_scope(scope: str, choice: Choice, option: Node) -> str:
    """Return the scope of decisions inside one option of a choice."""
    return f"{scope}{choice.key}={option.label}/"


def _decisions(
    node: Node, scope: str, conditions: tuple[tuple[str, str], ...]
) -> Iterator[Decision]:
    if isinstance(node, Choice):
        name = scope + node.key
        labels = tuple(option.label for option in node.options)
        yield Decision(name, labels, node.decided_by, conditions)
        for option in node.options:
            inner = (*conditions, (name, option.label))
            yield from _decisions(option, option_scope(scope, node, option), inner)
    elif isinstance(node, Stack):
        for layer_scope in node.scopes(scope):
            yield from _decisions(node.cell, layer_scope, conditions)
    else:
        for child in children(node):
            yield from _decisions(child, scope, conditions)


def _refuse_doubles(node: Node, space: str) -> None:
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
            for layer_scope in dict.fromkeys(node.scopes(scope)):
                visit(node.cell, layer_scope)
        else:
            for child in children(node):
                visit(child, scope)

    visit(node, "")


def _sizes(node: Node, scope: str) -> dict[str, int]:
    """Map each decision outside of conditions to its number of variants."""
    sizes: dict[str, int] = {}
    if isinstance(node, Choice):
        total = 0
        for option in node.options:
            product = 1
            for count in _sizes(option, option_scope(scope, node, option)).values():
                product *= count
            total += product
        sizes[scope + node.key] = total
    elif isinstance(node, Stack):
        for layer_scope in node.scopes(scope):
            sizes |= _sizes(node.cell, layer_scope)
    else:
        for child in children(node):
            sizes |= _sizes(child, scope)
    return sizes
