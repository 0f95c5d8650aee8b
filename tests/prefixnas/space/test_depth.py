"""Stacks whose number of layers is decided by trial."""

from __future__ import annotations

import random

import networkx as nx
import pytest
import torch

from prefixnas.base.errors import UserError
from prefixnas.network.supernet import Supernet, build_child
from prefixnas.space.architecture import Architecture
from prefixnas.space.graph import architecture_graph, space_graph
from prefixnas.space.loading import space_from_yaml, space_to_yaml
from prefixnas.space.nodes import Choice, Seq, Stack
from prefixnas.space.space import SearchSpace

CELL = Seq("linear", Choice("f", ["relu", "tanh"]))
DEPTH = Choice("depth", [2, 1, 3], "trial")
SPACE = SearchSpace("s", Stack(DEPTH, CELL))
TEXT = """
name: s
stack:
  layers: {choice: {key: depth, options: [2, 1, 3]}}
  cell: [linear, choice: {key: f, options: [relu, tanh]}]
"""


def deep(depth: int, options: str = "relu relu relu") -> Architecture:
    layers = options.split()[:depth]
    names = {f"layer{index}/f": option for index, option in enumerate(layers)}
    return Architecture({"depth": str(depth), **names}, "s")


def test_yaml_says_the_same() -> None:
    assert space_from_yaml(TEXT) == SPACE
    assert "options:\n      - 2" in space_to_yaml(SPACE).replace("        ", "      ")


def test_layers_of_different_depths_share_their_names() -> None:
    assert [d.name for d in SPACE.decisions] == ["depth", "layer0/f", "layer1/f", "layer2/f"]
    assert SPACE.size == 2 + 4 + 8
    assert set(SPACE.enumerate()) == {
        deep(depth, f"{a} {b} {c}")
        for depth in (1, 2, 3)
        for a in ("relu", "tanh")
        for b in ("relu", "tanh")
        for c in ("relu", "tanh")
    }


def test_what_is_deeper_does_not_count() -> None:
    assert SPACE.first() == deep(2)
    assert SPACE.first({"depth": "1", "f": "tanh"}) == deep(1, "tanh")
    with pytest.raises(UserError, match="unknown decision 'layer1/f'"):
        SPACE.validate(Architecture({"depth": "1", "layer0/f": "relu", "layer1/f": "relu"}, "s"))
    with pytest.raises(UserError, match="lacks a choice for 'layer1/f'"):
        SPACE.validate(Architecture({"depth": "2", "layer0/f": "relu"}, "s"))


def test_shared_layers_follow_one_decision_at_any_depth() -> None:
    space = SearchSpace("s", Stack(DEPTH, CELL, shared=True))
    assert [d.name for d in space.decisions] == ["depth", "f"]
    assert space.size == len(list(space.enumerate())) == 3 * 2


def test_a_depth_inside_an_option_counts_with_that_option() -> None:
    space = SearchSpace("s", Choice("block", ["identity", Stack(DEPTH, CELL)], "trial"))
    assert space.size == len(set(space.enumerate())) == 1 + 2 + 4 + 8
    deepest = next(d for d in space.decisions if d.name.endswith("layer2/f"))
    assert [options for _, options in deepest.conditions] == [
        (space.decisions[0].options[1],),
        ("3",),
    ]


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_children_have_as_many_layers_as_chosen(depth: int) -> None:
    child = build_child(SPACE, deep(depth), 4)
    assert sum(p.numel() for p in child.parameters()) == depth * 20
    hidden = torch.randn(2, 4)
    by_hand = hidden
    for index in range(depth):
        weight, bias = (getattr(child.root.parts[index].parts[0], n) for n in ("weight", "bias"))
        by_hand = torch.relu(by_hand @ weight.T + bias)
    torch.testing.assert_close(child(hidden), by_hand)


def test_supernets_hold_the_first_depth_or_the_one_that_is_set() -> None:
    assert [d.name for d in Supernet(SPACE, 4).decisions] == ["layer0/f", "layer1/f"]
    net = Supernet(SPACE, 4, settings={"depth": "3"})
    assert [d.name for d in net.decisions] == ["layer0/f", "layer1/f", "layer2/f"]
    assert net.architecture()["depth"] == "3"
    child = net.child()
    assert torch.equal(child.root.parts[2].parts[0].weight, net.root.parts[2].parts[0].weight)
    with pytest.raises(UserError, match="holds 'depth' as '3', not '1'"):
        net.child(deep(1))


def test_graphs_show_the_chosen_depth_or_all() -> None:
    graph = architecture_graph(SPACE, deep(1, "tanh"))
    assert list(graph) == ["input", "layer0/linear", "layer0/tanh", "output"]
    everything = space_graph(SPACE)
    meet = sorted(source for source, target in everything.edges if target == "<depth>")
    assert meet == ["layer0/<f>", "layer1/<f>", "layer2/<f>"]
    assert nx.is_directed_acyclic_graph(everything)


def test_every_depth_is_sampled() -> None:
    rng = random.Random(0)
    assert {SPACE.sample(rng)["depth"] for _ in range(40)} == {"1", "2", "3"}


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ("{choice: {key: d, options: [2, 0]}}", "'layer': layers must be whole numbers .* not '0'"),
        ("{choice: {key: d, options: [2, two]}}", "must be whole numbers .* not 'two'"),
        ("{choice: {key: d, options: [2, 2]}}", "lists the option '2' twice"),
        ("{choice: {key: d, options: [1], decided_by: alpha}}", "say decided_by: trial"),
        ("{choise: {key: d, options: [1]}}", "layers must be a whole number"),
        ("{choice: {key: d, options: [true]}}", r"layers.choice.options\[0\]: .* in quotes"),
        ("{choice: {key: d, options: [[1]]}}", r"options\[0\]: expected a name or a number"),
    ],
)
def test_mistakes(layers: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        space_from_yaml(f"name: s\nstack: {{layers: {layers}, cell: relu}}", "f.yaml")
    assert str(caught.value).startswith("f.yaml: ")
