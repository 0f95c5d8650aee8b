"""The nodes of a search space: `Op`, `Seq`, `Sum`, `Choice`, `Stack`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from prefixnas.base.errors import UserError, brief, unknown

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
        options: The candidates; strings stand for operations. Where no network is built from
            them (knobs, the layers of a stack), they are names or numbers.
        decided_by: "alpha": by the gradient of the relaxed choice. "trial": by strategies that
            train candidates apart, or by hand; a supernet holds the first option, or the one set.
    """

    key: str
    options: tuple[Node, ...]
    decided_by: DecidedBy

    def __init__(
        self,
        key: str,
        options: Sequence[Node | str | float],
        decided_by: str = "alpha",
    ) -> None:
        where = f"choice {key!r}"
        if not options:
            raise UserError(f"{where} has no options; give at least one")
        if decided_by not in ("alpha", "trial"):
            raise unknown("decided_by", decided_by, ["alpha", "trial"], where)
        nodes = tuple(_as_option(option) for option in options)
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
        layers: Number of copies, at least 1; or the name of one of the space's sizes; or a choice
            between numbers that is decided by trial: `Choice("depth", [2, 4, 6], "trial")`. Then
            the decisions of layer i count where more than i layers are chosen.
        cell: The node that is repeated.
        shared: One set of decisions for all layers instead of one per layer.
        name: Prefix of the layers' names; two stacks in one space need different names.
    """

    layers: int | str | Choice
    cell: Node
    shared: bool = False
    name: str = "layer"

    def __init__(
        self,
        layers: int | str | Choice,
        cell: Node | str,
        shared: bool = False,
        name: str = "layer",
    ) -> None:
        where = f"stack {name!r}"
        if isinstance(layers, Choice):
            _check_depth(layers, where)
        elif not isinstance(layers, str) and not _whole(layers):
            raise UserError(
                f"{where}: layers must be a whole number of at least 1, not {brief(layers)}"
            )
        object.__setattr__(self, "layers", layers)
        object.__setattr__(self, "cell", as_node(cell))
        object.__setattr__(self, "shared", shared)
        object.__setattr__(self, "name", name)

    @property
    def label(self) -> str:
        """`stack(2, linear+relu)`."""
        shared = ", shared" if self.shared else ""
        layers = self.layers.label if isinstance(self.layers, Choice) else self.layers
        return f"stack({layers}, {self.cell.label}{shared})"

    @property
    def depths(self) -> tuple[int, ...]:
        """The numbers of layers that it can have, in the order in which they are given."""
        if isinstance(self.layers, Choice):
            return tuple(int(option.label) for option in self.layers.options)
        assert isinstance(self.layers, int), "sizes are resolved when a space is made"
        return (self.layers,)

    def scopes(self, scope: str) -> list[str]:
        """Return the scope of each layer's decisions inside `scope`, for the deepest stack."""
        if self.shared:
            return [scope] * max(self.depths)
        return [f"{scope}{self.name}{index}/" for index in range(max(self.depths))]


def _whole(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= 1


def _check_depth(choice: Choice, where: str) -> None:
    for option in choice.options:
        if not option.label.isdecimal() or option.label.startswith("0"):
            raise UserError(
                f"{where}: layers must be whole numbers of at least 1, not {brief(option.label)}"
            )
    if choice.decided_by != "trial":
        raise UserError(
            f"{where}: the number of layers cannot be decided by alpha; say decided_by: trial"
        )


def _as_option(option: Any) -> Node:
    number = isinstance(option, int | float) and not isinstance(option, bool)
    return as_node(str(option) if number else option)


def as_node(item: Node | str) -> Node:
    """Return `item` as a node; a string is an operation without parameters."""
    if isinstance(item, Node):
        return item
    if isinstance(item, str):
        return Op(item)
    raise UserError(
        f"{item!r} is no node of a search space; use Op, Seq, Sum, Choice, Stack or a name"
    )


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


def with_sizes(node: Node, sizes: Mapping[str, int]) -> Node:
    """Return the tree with numbers in the place of its stacks' named sizes.

    Raises:
        UserError: A size that is not among `sizes`.
    """
    if isinstance(node, Stack):
        layers = node.layers
        if isinstance(layers, str):
            if layers not in sizes:
                declared = ", ".join(sizes) or "none are declared"
                raise UserError(
                    f"stack {node.name!r}: layers must be a whole number of at least 1 or one of "
                    f"the space's sizes ({declared}), not {brief(layers)}"
                )
            layers = sizes[layers]
        return Stack(layers, with_sizes(node.cell, sizes), node.shared, node.name)
    inner = [with_sizes(child, sizes) for child in children(node)]
    if isinstance(node, Choice):
        return Choice(node.key, inner, node.decided_by)
    if isinstance(node, Seq | Sum):
        return type(node)(*inner)
    return node
