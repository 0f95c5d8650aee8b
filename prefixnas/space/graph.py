"""Architectures and spaces as networkx graphs, and their drawing to PNG or SVG."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import networkx as nx

from prefixnas.space.architecture import Architecture
from prefixnas.space.nodes import Choice, Node, Op, Seq, Stack, Sum, option_scope
from prefixnas.space.space import SearchSpace

if TYPE_CHECKING:
    Graph = nx.DiGraph[str]


def architecture_graph(space: SearchSpace, architecture: Architecture) -> Graph:
    """Return the dataflow graph of one architecture.

    Nodes are `input`, `output`, one per operation (`layer0/linear`; the second of a name in one
    layer is `layer0/linear#2`) and one per sum. Their attributes:

    - `kind`: "input", "op", "sum" or "output";
    - `label`: the operation with its parameters, "+" for a sum;
    - `layer`: the stack's layer it is in, "" outside of stacks;
    - `decision`: name of the decision that put it there, "" for what is not chosen;
    - `row`, `lane`: its place in the drawing.

    What the objective carries out is no part of the flow: `graph.graph["knobs"]` maps each of these
    decisions to its option, and `graph.graph["notes"]` says so in lines.

    Raises:
        UserError: The architecture is not of this space.
    """
    graph = _Builder(space.validate(architecture)).build(space.root)
    knobs = [decision.name for decision in space.knob_decisions]
    chosen = {name: architecture[name] for name in knobs if name in architecture}
    graph.graph.update(knobs=chosen, notes=_knob_lines(chosen))
    return graph


def space_graph(space: SearchSpace) -> Graph:
    """Return the graph of all candidates: options are branches that meet in a "choice" node.

    Attributes are those of `architecture_graph`; a choice node's label is its key.
    """
    return _Builder(None).build(space.root)


class _Builder:
    """Walks a space's tree as the supernet does, and notes every operation on the way.

    Args:
        architecture: Which options to follow; None for all of them.
    """

    def __init__(self, architecture: Architecture | None) -> None:
        self.architecture = architecture
        self.graph: Graph = nx.DiGraph()
        self.row = 0
        self.layer: str | None = None

    def build(self, root: Node) -> Graph:
        self.graph.add_node("input", kind="input", label="input", layer="", decision="", lane=0)
        end = self._walk(root, ["input"], "", "", "", 0)
        self.graph.add_node("output", kind="output", label="output", layer="", decision="", lane=0)
        self._connect(end, "output")
        self.graph.nodes["input"]["row"] = 0
        self.graph.nodes["output"]["row"] = self.row
        return self.graph

    def _walk(
        self, node: Node, before: list[str], scope: str, layer: str, decision: str, lane: int
    ) -> list[str]:
        """Add `node` behind the nodes `before`; return the nodes that hold its output."""
        if isinstance(node, Op):
            return self._add("op", node.name, node.label, before, layer, decision, lane)
        if isinstance(node, Seq):
            for part in node.nodes:
                before = self._walk(part, before, scope, layer, decision, lane)
            return before
        if isinstance(node, Stack):
            return self._stack(node, before, scope, layer, decision, lane)
        if isinstance(node, Sum):
            parts = [(branch, scope, decision) for branch in node.branches]
            ends = self._fan(parts, before, layer, lane)
            return self._add("sum", "sum", "+", ends, layer, decision, lane)
        assert isinstance(node, Choice)
        name = scope + node.key
        options = [
            (option, option_scope(scope, node, option), name)
            for option in node.options
            if self.architecture is None or self.architecture[name] == option.label
        ]
        ends = self._fan(options, before, layer, lane)
        if self.architecture is not None:
            return ends
        return self._add("choice", f"<{node.key}>", node.key, ends, layer, name, lane)

    def _stack(
        self, node: Stack, before: list[str], scope: str, layer: str, decision: str, lane: int
    ) -> list[str]:
        """Add the layers; without an architecture, all depths meet behind the deepest."""
        depths = self._depths(node, scope)
        ends: list[str] = []
        for index, inner in enumerate(node.scopes(scope)[: max(depths)]):
            place = f"{layer}/{node.name}{index}".removeprefix("/")
            before = self._walk(node.cell, before, inner, place, decision, lane)
            ends += before if index + 1 in depths else []
        if len(depths) == 1:
            return before
        assert isinstance(node.layers, Choice)
        key = node.layers.key
        return self._add("choice", f"<{key}>", key, ends, layer, scope + key, lane)

    def _depths(self, node: Stack, scope: str) -> tuple[int, ...]:
        if isinstance(node.layers, Choice) and self.architecture is not None:
            return (int(self.architecture[scope + node.layers.key]),)
        return node.depths

    def _fan(
        self, parts: list[tuple[Node, str, str]], before: list[str], layer: str, lane: int
    ) -> list[str]:
        """Add parallel parts in lanes of their own, the longest one straight ahead."""
        order = sorted(range(len(parts)), key=lambda index: -_length(parts[index][0]))
        lanes = {}
        for index in order:
            lanes[index] = lane
            lane += self._lanes(parts[index][0], parts[index][1])
        ends = []
        for index, (node, scope, decision) in enumerate(parts):
            ends += self._walk(node, before, scope, layer, decision, lanes[index])
        return ends

    def _lanes(self, node: Node, scope: str) -> int:
        """Count the lanes that a node takes."""
        if isinstance(node, Seq):
            return max(self._lanes(part, scope) for part in node.nodes)
        if isinstance(node, Sum):
            return sum(self._lanes(branch, scope) for branch in node.branches)
        if isinstance(node, Stack):
            layers = node.scopes(scope)[: max(self._depths(node, scope))]
            return max(self._lanes(node.cell, inner) for inner in layers)
        if isinstance(node, Choice):
            counts = {
                option.label: self._lanes(option, option_scope(scope, node, option))
                for option in node.options
                if self.architecture is None
                or self.architecture.get(scope + node.key) == option.label
            }
            return sum(counts.values())
        return 1

    def _add(
        self,
        kind: str,
        name: str,
        label: str,
        before: list[str],
        layer: str,
        decision: str,
        lane: int,
    ) -> list[str]:
        if self.layer is not None and self.layer != layer:
            self.row += 1
        self.layer = layer
        base = f"{layer}/{name}".removeprefix("/")
        node, count = base, 1
        while node in self.graph or node == "output":
            count += 1
            node = f"{base}#{count}"
        self.graph.add_node(
            node, kind=kind, label=label, layer=layer, decision=decision, row=self.row, lane=lane
        )
        self._connect(before, node)
        return [node]

    def _connect(self, before: list[str], node: str) -> None:
        self.graph.add_edges_from((source, node) for source in before)


def _length(node: Node) -> int:
    """Count the operations on the longest way through a node."""
    if isinstance(node, Seq):
        return sum(_length(part) for part in node.nodes)
    if isinstance(node, Sum):
        return 1 + max(_length(branch) for branch in node.branches)
    if isinstance(node, Choice):
        return max(_length(option) for option in node.options)
    if isinstance(node, Stack):
        return max(node.depths) * _length(node.cell)
    return 1


def _knob_lines(knobs: Mapping[str, str]) -> list[str]:
    """Say each key's knobs in a line: `gate: on at attention0, attention2; off at attention1`."""
    places: dict[str, dict[str, list[str]]] = {}
    for name, option in knobs.items():
        place, _, key = name.rpartition("/")
        places.setdefault(key, {}).setdefault(option, []).append(place)
    return [
        f"{key}: "
        + "; ".join(
            f"{option} at {', '.join(where)}" if any(where) else option
            for option, where in options.items()
        )
        for key, options in places.items()
    ]
