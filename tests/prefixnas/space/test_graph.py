"""Graphs of architectures and spaces, and their drawing."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefixnas.base.errors import UserError
from prefixnas.report.plots.graph import draw, graph_figure
from prefixnas.space.architecture import Architecture
from prefixnas.space.graph import architecture_graph, space_graph
from prefixnas.space.loading import load_space
from prefixnas.space.nodes import Choice, Node, Op, Seq, Stack, Sum
from prefixnas.space.space import SearchSpace

pytestmark = pytest.mark.usefixtures("rendered")

BLOCK = Seq("linear", "tanh")


def two_layers() -> SearchSpace:
    cell = Seq("linear", Choice("activation", ["relu", "tanh"]), "layer_norm")
    return SearchSpace("small", Stack(2, cell))


def test_chain_has_the_edges_written_by_hand() -> None:
    space = two_layers()
    chosen = Architecture({"layer0/activation": "tanh", "layer1/activation": "relu"}, "small")
    graph = architecture_graph(space, chosen)
    assert list(graph.edges) == [
        ("input", "layer0/linear"),
        ("layer0/linear", "layer0/tanh"),
        ("layer0/tanh", "layer0/layer_norm"),
        ("layer0/layer_norm", "layer1/linear"),
        ("layer1/linear", "layer1/relu"),
        ("layer1/relu", "layer1/layer_norm"),
        ("layer1/layer_norm", "output"),
    ]
    tanh = graph.nodes["layer0/tanh"]
    assert (tanh["kind"], tanh["label"], tanh["layer"]) == ("op", "tanh", "layer0")
    assert tanh["decision"] == "layer0/activation"
    assert graph.nodes["layer1/linear"]["decision"] == ""
    assert {data["row"] for _, data in graph.nodes(data=True)} == {0, 1}


def test_sum_meets_in_a_node_and_repeated_operations_are_numbered() -> None:
    root = Seq("linear", Sum("identity", Choice("block", [BLOCK, "zero"])), Op("dropout", 0.1))
    space = SearchSpace("skip", root)
    graph = architecture_graph(space, Architecture({"block": "linear+tanh"}, "skip"))
    assert set(graph.edges) == {
        ("input", "linear"),
        ("linear", "identity"),
        ("linear", "linear#2"),
        ("linear#2", "tanh"),
        ("identity", "sum"),
        ("tanh", "sum"),
        ("sum", "dropout"),
        ("dropout", "output"),
    }
    assert graph.nodes["dropout"]["label"] == "dropout(0.1)"
    assert {node for node in graph if graph.nodes[node]["decision"] == "block"} == {
        "linear#2",
        "tanh",
    }
    assert graph.nodes["identity"]["lane"] != graph.nodes["tanh"]["lane"]


def test_shared_layers_follow_one_decision_in_places_of_their_own() -> None:
    space = SearchSpace("shared", Stack(2, Choice("activation", ["relu", "tanh"]), shared=True))
    graph = architecture_graph(space, Architecture({"activation": "relu"}, "shared"))
    assert list(graph.edges) == [
        ("input", "layer0/relu"),
        ("layer0/relu", "layer1/relu"),
        ("layer1/relu", "output"),
    ]
    assert graph.nodes["layer1/relu"]["decision"] == "activation"


def test_nested_choice_carries_the_inner_decision() -> None:
    inner = Seq("linear", Choice("inner", ["relu", "gelu"]))
    space = SearchSpace("nested", Choice("outer", [inner, "identity"]))
    name = "outer=linear+<inner>/inner"
    graph = architecture_graph(
        space, Architecture({"outer": "linear+<inner>", name: "gelu"}, "nested")
    )
    assert graph.nodes["linear"]["decision"] == "outer"
    assert graph.nodes["gelu"]["decision"] == name


def test_space_graph_holds_every_option() -> None:
    graph = space_graph(SearchSpace("one", Seq("linear", Choice("act", ["relu", "tanh"]))))
    assert set(graph.edges) == {
        ("input", "linear"),
        ("linear", "relu"),
        ("linear", "tanh"),
        ("relu", "<act>"),
        ("tanh", "<act>"),
        ("<act>", "output"),
    }
    assert graph.nodes["<act>"]["kind"] == "choice"


def test_architecture_of_another_space_is_refused() -> None:
    with pytest.raises(UserError, match="layer0/activation"):
        architecture_graph(two_layers(), Architecture({}, "small"))


@pytest.mark.parametrize("name", ["default", "paper", "sensitivity"])
def test_every_shipped_space_is_one_flow_from_input_to_output(name: str) -> None:
    space = load_space(name)
    graph = architecture_graph(space, space.sample(random.Random(3)))
    assert nx.is_directed_acyclic_graph(graph)
    assert [node for node in graph if graph.in_degree(node) == 0] == ["input"]
    assert [node for node in graph if graph.out_degree(node) == 0] == ["output"]
    chosen = {data["decision"] for _, data in graph.nodes(data=True)} - {""}
    assert chosen == {decision.name for decision in space.decisions}


def nodes(depth: int) -> st.SearchStrategy[Node]:
    leaves: st.SearchStrategy[Node] = st.sampled_from(["linear", "relu", "identity"]).map(Op)
    if depth == 0:
        return leaves
    inner = st.lists(nodes(depth - 1), min_size=1, max_size=3)
    return st.one_of(
        leaves,
        inner.map(lambda parts: Seq(*parts)),
        inner.map(lambda parts: Sum(*parts)),
    )


@settings(max_examples=40, deadline=None)
@given(nodes(3))
def test_no_two_nodes_are_drawn_in_one_place(node: Node) -> None:
    space = SearchSpace("any", Seq("linear", Stack(2, node)))
    graph = architecture_graph(space, space.first())
    assert nx.is_directed_acyclic_graph(graph)
    texts = [text for text in graph_figure(graph).axes[0].texts if text.get_text()]
    places = [text.get_position() for text in texts if not text.get_text().startswith("layer")]
    assert len(set(places)) == len(places) == len(graph)


@pytest.mark.parametrize("name", ["default", "sensitivity"])
def test_svg_and_png_are_written(name: str, tmp_path: Path) -> None:
    space = load_space(name)
    graph = architecture_graph(space, space.first())
    draw(graph, tmp_path / "a.svg")
    draw(graph, tmp_path / "a.PNG")
    root = ElementTree.parse(tmp_path / "a.svg").getroot()
    assert root.tag.endswith("svg")
    assert (tmp_path / "a.PNG").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.PNG", "a.svg"]


def test_drawing_names_every_operation_and_marks_decisions() -> None:
    space = two_layers()
    chosen = Architecture({"layer0/activation": "tanh", "layer1/activation": "relu"}, "small")
    figure = graph_figure(architecture_graph(space, chosen))
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts.count("linear") == 2
    assert {"input", "tanh", "relu", "layer_norm", "output", "layer0", "layer1"} <= set(texts)
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["activation", "fixed"]


def test_drawing_lists_what_the_objective_carries_out() -> None:
    gates = Stack(3, Choice("gate", ["on", "off"]), name="attention")
    space = SearchSpace("knobs", "linear", [Choice("length", [5, 10], "trial"), gates])
    chosen = space.first({"attention1/gate": "off"})
    graph = architecture_graph(space, chosen)
    assert graph.graph["knobs"] == chosen.choices
    assert list(graph) == ["input", "linear", "output"]
    texts = [text.get_text() for text in graph_figure(graph).axes[0].texts]
    assert "length: 5" in texts
    assert "gate: on at attention0, attention2; off at attention1" in texts


def test_unknown_suffix_and_unwritable_folder_are_user_errors(tmp_path: Path) -> None:
    graph = architecture_graph(two_layers(), two_layers().first())
    with pytest.raises(UserError, match=r"'\.gif'.*\.png, \.svg"):
        draw(graph, tmp_path / "a.gif")
    with pytest.raises(UserError, match="cannot be written"):
        draw(graph, tmp_path / "missing" / "a.png")


def test_graphs_do_not_import_torch_or_pyplot() -> None:
    code = (
        "import sys, prefixnas.space.graph, prefixnas.report.plots.graph\n"
        "assert not {'torch', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
