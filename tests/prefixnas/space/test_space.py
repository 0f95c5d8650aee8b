"""The search-space algebra."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from prefixnas.base.errors import UserError
from prefixnas.network.supernet import build_child, count_parameters
from prefixnas.space.architecture import Architecture, by_layer
from prefixnas.space.loading import space_from_yaml, space_to_yaml
from prefixnas.space.nodes import Choice, Op, Seq, Stack, Sum
from prefixnas.space.space import SearchSpace
from prefixnas.testing import shipped_spaces
from tests.prefixnas.space.random_spaces import spaces

FEW = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def cell(*options: str) -> Seq:
    return Seq("linear", Choice("activation", list(options)))


@FEW
@given(spaces())
def test_yaml_gives_the_same_space_back(space: SearchSpace) -> None:
    again = space_from_yaml(space_to_yaml(space))
    assert again == space
    assert again.decisions == space.decisions


@FEW
@given(spaces())
def test_size_is_the_number_of_architectures(space: SearchSpace) -> None:
    assume(space.size <= 300)
    found = list(space.enumerate())
    assert len(found) == len(set(found)) == space.size
    for architecture in found:
        assert space.validate(architecture) is architecture


@FEW
@given(spaces(), st.integers(0, 5))
def test_every_sample_is_in_the_space_builds_and_runs(space: SearchSpace, seed: int) -> None:
    assume(space.size <= 300)
    sample = space.sample(random.Random(seed))
    assert sample in set(space.enumerate())
    assert sample == space.sample(random.Random(seed))
    child = build_child(space, sample, 4)
    assert child(torch.zeros(3, 4)).shape == (3, child.width_out)
    by_hand = sum(weight.numel() for weight in child.parameters())
    assert count_parameters(space, sample, 4) == by_hand


@pytest.mark.parametrize("space", shipped_spaces(), ids=lambda space: space.name)
def test_shipped_spaces_round_trip_and_build(space: SearchSpace) -> None:
    assert space_from_yaml(space_to_yaml(space)) == space
    for seed in range(3):
        child = build_child(space, space.sample(random.Random(seed)), 8)
        assert child(torch.zeros(2, 8)).shape == (2, 8)


def test_sizes_of_the_shipped_spaces() -> None:
    sizes = {space.name: space.size for space in shipped_spaces()}
    by_hand = {"default": (4 * 3) ** 6, "paper": 12**6, "sensitivity": (4 * 3 * 2) ** 3}
    assert by_hand.items() <= sizes.items()


def test_every_option_is_sampled() -> None:
    space = SearchSpace("s", cell("relu", "tanh", "gelu"))
    rng = random.Random(0)
    assert {space.sample(rng)["activation"] for _ in range(50)} == {"relu", "tanh", "gelu"}


def test_layers_decide_apart_or_together() -> None:
    apart = SearchSpace("s", Stack(3, cell("relu", "tanh")))
    together = SearchSpace("s", Stack(3, cell("relu", "tanh"), shared=True))
    assert [d.name for d in apart.decisions] == [f"layer{i}/activation" for i in range(3)]
    assert [d.name for d in together.decisions] == ["activation"]
    assert (apart.size, together.size) == (8, 2)


def test_a_choice_inside_an_option_counts_only_with_that_option() -> None:
    inner = Choice("inner", ["relu", "tanh"])
    space = SearchSpace("s", Choice("outer", ["identity", Seq("linear", inner)]))
    assert space.size == 3
    outer, nested = space.decisions
    assert nested.conditions == ((outer.name, ("linear+<inner>",)),)
    assert {frozenset(a.items()) for a in space.enumerate()} == {
        frozenset({("outer", "identity")}),
        frozenset({("outer", "linear+<inner>"), ("outer=linear+<inner>/inner", "relu")}),
        frozenset({("outer", "linear+<inner>"), ("outer=linear+<inner>/inner", "tanh")}),
    }
    with pytest.raises(UserError, match="unknown decision"):
        space.validate(Architecture({"outer": "identity", nested.name: "relu"}, "s"))
    with pytest.raises(UserError, match="lacks a choice for 'outer=linear"):
        space.validate(Architecture({"outer": "linear+<inner>"}, "s"))


def test_an_unknown_option_names_the_nearest() -> None:
    space = SearchSpace("s", cell("relu", "tanh"))
    with pytest.raises(UserError, match="did you mean 'relu'"):
        space.validate(Architecture({"activation": "rellu"}, "s"))


def test_settings_reach_one_decision_or_all_of_a_key() -> None:
    space = SearchSpace("s", Stack(2, cell("relu", "tanh")))
    assert set(space.first().values()) == {"relu"}
    assert space.settle({"activation": "tanh"}) == {
        "layer0/activation": "tanh",
        "layer1/activation": "tanh",
    }
    assert space.settle({"layer1/activation": "tanh"}) == {"layer1/activation": "tanh"}
    assert space.first({"layer1/activation": "tanh"})["layer1/activation"] == "tanh"
    with pytest.raises(UserError, match="unknown decision 'activaton'"):
        space.settle({"activaton": "tanh"})
    with pytest.raises(UserError, match=r"unknown option 'tan'.*'tanh'"):
        space.settle({"activation": "tan"})


@pytest.mark.parametrize(
    "root",
    [
        Seq(Choice("a", ["relu"]), Choice("a", ["tanh"])),
        Seq(Choice("a", ["relu"]), Choice("a", ["relu"])),
        Seq(Stack(2, cell("relu")), Stack(1, cell("tanh"))),
        Sum(Stack(2, cell("relu"), shared=True), Stack(2, cell("relu"), shared=True)),
    ],
)
def test_two_choices_of_one_name_are_refused(root: Seq | Sum) -> None:
    with pytest.raises(UserError, match="choices are called"):
        SearchSpace("s", root)


def test_stacks_of_different_names_live_together() -> None:
    space = SearchSpace("s", Seq(Stack(1, cell("relu")), Stack(1, cell("relu"), name="top")))
    assert [d.name for d in space.decisions] == ["layer0/activation", "top0/activation"]


def test_mistakes_in_nodes() -> None:
    with pytest.raises(UserError, match="has no options"):
        Choice("a", [])
    with pytest.raises(UserError, match="lists the option 'relu' twice"):
        Choice("a", ["relu", "relu"])
    with pytest.raises(UserError, match="unknown decided_by 'alfa': did you mean 'alpha'"):
        Choice("a", ["relu"], "alfa")
    with pytest.raises(UserError, match="layers must be a whole number of at least 1"):
        Stack(0, "relu")
    with pytest.raises(UserError, match="at least one node"):
        Seq()
    with pytest.raises(UserError, match="at least one branch"):
        Sum()
    with pytest.raises(UserError, match="no node of a search space"):
        Seq(3)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="unknown operation 'rellu': did you mean 'relu'"):
        SearchSpace("s", "rellu")


def test_wrong_parameters_name_the_operation() -> None:
    with pytest.raises(UserError, match=r"'linear' cannot be built with \(colour='red'\)"):
        SearchSpace("s", Op("linear", colour="red"))


def test_reduction_cells_change_the_width_and_sums_refuse_two_widths() -> None:
    half = SearchSpace("s", Op("linear", factor=0.5))
    assert build_child(half, half.first(), 8).width_out == 4
    uneven = SearchSpace("s", Sum("identity", Op("linear", factor=0.5)))
    with pytest.raises(UserError, match=r"different widths \[4, 8\]"):
        build_child(uneven, uneven.first(), 8)


def test_parameters_counted_by_hand() -> None:
    space = SearchSpace("s", Stack(3, Seq("linear", Op("linear", bias=False), "layer_norm")))
    assert count_parameters(space, space.first(), 5) == 3 * ((25 + 5) + 25 + 2 * 5)


def test_choices_by_layer() -> None:
    assert by_layer({"a": "x", "layer0/b": "y", "layer0/b=y/c": "z", "o=p+q/r": "s"}) == {
        "": {"a": "x", "o=p+q/r": "s"},
        "layer0": {"b": "y", "b=y/c": "z"},
    }
