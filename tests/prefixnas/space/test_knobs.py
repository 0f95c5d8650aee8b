"""Knobs, which the objective carries out, and sizes, which it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from prefixnas.base.errors import UserError
from prefixnas.network.child import knobs_of
from prefixnas.network.relaxations import RELAXATIONS
from prefixnas.network.supernet import Supernet, build_child
from prefixnas.run.objective import fit_space
from prefixnas.run.run import Budget, Run
from prefixnas.run.search import search
from prefixnas.run.strategy import Strategy
from prefixnas.space.architecture import Architecture
from prefixnas.space.decisions import Decision
from prefixnas.space.loading import load_space, space_from_yaml, space_to_yaml
from prefixnas.space.nodes import Choice, Op, Stack, Sum
from prefixnas.space.space import SearchSpace
from prefixnas.strategies.darts import Darts
from prefixnas.strategies.fixed import Fixed
from prefixnas.strategies.random import RandomSearch
from prefixnas.testing import ToyObjective, check_strategy, shipped_spaces

TEXT = """
name: s
sizes: {inputs: 2}
knobs:
  - choice: {key: power, options: [1, 2], decided_by: trial}
  - stack: {layers: inputs, name: input, cell: {choice: {key: gate, options: ["on", "off"]}}}
seq:
  - linear
  - choice: {key: f, options: [relu, tanh]}
"""
SPACE = space_from_yaml(TEXT)
GATES = ["input0/gate", "input1/gate", "input2/gate"]


class Gated(ToyObjective):
    """Multiplies each of its first three outputs by a gate, and raises them to a power."""

    name = "gated"
    sizes: Mapping[str, int] = {"inputs": 3, "others": 7}

    def check_knobs(self, knobs: Sequence[Decision]) -> None:
        for knob in knobs:
            if knob.name not in ("power", *GATES):
                raise UserError(f"no knob {knob.name!r} here")

    def _predict(self, inputs: Tensor) -> Tensor:
        hidden = self._module(inputs) if self._module is not None else inputs
        knobs = knobs_of(self._module)
        columns = [*hidden.unbind(-1)]
        for index, name in enumerate(GATES):
            if name in knobs:
                columns[index] = columns[index] * knobs[name].get("on", torch.zeros(()))
        (power,) = knobs.get("power", {"1": None})
        predicted: Tensor = self._head(torch.stack(columns, -1) ** int(power))
        return predicted


def fitted() -> tuple[Gated, SearchSpace]:
    objective = Gated()
    return objective, fit_space(SPACE, objective)


# Spaces


def test_python_says_the_same() -> None:
    by_hand = SearchSpace(
        "s",
        SPACE.declared,
        knobs=[
            Choice("power", [1, 2], "trial"),
            Stack("inputs", Choice("gate", ["on", "off"]), name="input"),
        ],
        sizes={"inputs": 2},
    )
    assert by_hand == SPACE
    assert space_from_yaml(space_to_yaml(SPACE)) == SPACE


def test_knobs_are_decisions_like_others() -> None:
    assert [d.name for d in SPACE.decisions] == ["f", "power", *GATES[:2]]
    assert [d.knob for d in SPACE.decisions] == [False, True, True, True]
    assert SPACE.size == len(set(SPACE.enumerate())) == 2**4
    assert SPACE.settle({"gate": "off"}) == {"input0/gate": "off", "input1/gate": "off"}


def test_other_sizes_make_another_space_that_round_trips() -> None:
    more = SPACE.with_sizes({"inputs": 3, "unused": 9})
    assert [d.name for d in more.knob_decisions] == ["power", *GATES]
    assert more.sizes == {"inputs": 3}
    assert more != SPACE
    assert space_from_yaml(space_to_yaml(more)) == more


def test_sizes_count_layers_of_the_network_too() -> None:
    space = SearchSpace("s", Stack("many", "linear"), sizes={"many": 2})
    child = build_child(space.with_sizes({"many": 4}), Architecture({}, "s"), 3)
    assert sum(p.numel() for p in child.parameters()) == 4 * 12


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "stack: {layers: many, cell: relu}",
            r"one of the space's sizes \(none are declared\), not",
        ),
        ("sizes: {may: 2}\nstack: {layers: many, cell: relu}", r"sizes \(may\), not 'many'"),
        (
            "sizes: {many: 0}\nseq: [relu]",
            "sizes.many: must be a whole number of at least 1, not 0",
        ),
        ("sizes: {many: true}\nseq: [relu]", "sizes.many: must be a whole number .* not True"),
        ("sizes: [many]\nseq: [relu]", "sizes: expected a mapping"),
        ("knobs: {choice: {}}\nseq: [relu]", "knobs: expected a list"),
        ("knobs: [relu]\nseq: [relu]", r"knobs\[0\]: expected .* choice or stack, not 'relu'"),
        ("knobs: [choice: {key: g}]\nseq: [relu]", r"knobs\[0\].choice: key 'options' is missing"),
        (
            "knobs: [choice: {key: g, options: [on, off]}]\nseq: [relu]",
            r"knobs\[0\].choice.options\[0\]: YAML reads on, off, .* in quotes",
        ),
        ("knobs: [choice: {key: g, options: [{dropout: 0.1}]}]\nseq: [relu]", "a name or a number"),
        (
            "knobs: [choice: {key: f, options: [a]}]\nseq: [choice: {key: f, options: [relu]}]",
            "two choices are called 'f'",
        ),
        ("seq: [choice: {key: f, options: [2, 4]}]", r"options\[0\]: expected an operation"),
    ],
)
def test_mistakes(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        space_from_yaml(f"name: s\n{text}", "f.yaml")
    assert str(caught.value).startswith("f.yaml")
    assert "\n" not in str(caught.value)


def test_knobs_hold_names_alone() -> None:
    with pytest.raises(UserError, match=r"options of knob 'g' must be names .* 'dropout\(0.1\)'"):
        SearchSpace("s", "relu", [Choice("g", ["off", Op("dropout", 0.1)])])
    with pytest.raises(UserError, match="a knob is a choice"):
        SearchSpace("s", "relu", [Sum("relu")])


# Modules


def test_a_child_says_what_was_chosen() -> None:
    _, space = fitted()
    child = build_child(space, space.first({"power": "2", "input1/gate": "off"}), 8)
    chosen = {
        name: {o: float(w) for o, w in options.items()} for name, options in child.knobs().items()
    }
    assert chosen == {
        "power": {"2": 1.0},
        "input0/gate": {"on": 1.0},
        "input1/gate": {"off": 1.0},
        "input2/gate": {"on": 1.0},
    }
    assert knobs_of(torch.nn.Linear(2, 2)) == knobs_of(None) == {}


@pytest.mark.parametrize("relaxation", RELAXATIONS.names())
def test_a_supernet_weighs_knobs_as_its_forward_pass(relaxation: str) -> None:
    _, space = fitted()
    torch.manual_seed(0)
    net = Supernet(space, 8, RELAXATIONS.get(relaxation)())
    assert [d.name for d in net.decisions] == ["f", *GATES]
    for _ in range(3):
        net(torch.randn(2, 8))
        knobs = net.knobs()
        assert list(knobs) == ["power", *GATES]
        assert {option: float(weight) for option, weight in knobs["power"].items()} == {"1": 1.0}
        for name in GATES:
            assert list(knobs[name]) == ["on", "off"]
            assert sum(knobs[name].values()).item() == pytest.approx(1.0)
            assert torch.equal(knobs[name]["on"], net.knobs()[name]["on"])
        assert knobs["input0/gate"]["on"].requires_grad


def test_gradients_reach_the_alphas_of_knobs() -> None:
    objective, space = fitted()
    torch.manual_seed(0)
    net = Supernet(space, objective.width).double()
    objective._head.double()
    objective._data = {k: (x.double(), y.double()) for k, (x, y) in objective._data.items()}
    objective.reset(net, 0)
    objective.backward("train")
    analytic = [alpha.grad.clone() for alpha in net.alphas if alpha.grad is not None]

    def loss(alpha: Tensor, index: int, change: float) -> float:
        with torch.no_grad():
            alpha[index] += change
            objective._drawn["train"] = 0
        value = sum(objective.backward("train").values()) / 2
        with torch.no_grad():
            alpha[index] -= change
        return value

    for alpha, gradient in zip(net.alphas, analytic, strict=True):
        sides = [[loss(alpha, i, sign * 1e-6) for i in range(len(alpha))] for sign in (1, -1)]
        numeric = torch.tensor(sides, dtype=torch.float64).diff(dim=0)[0] / -2e-6
        torch.testing.assert_close(gradient, numeric, rtol=1e-4, atol=1e-6)


def test_a_pruned_option_is_out_of_the_question() -> None:
    _, space = fitted()
    net = Supernet(space, 8)
    with torch.no_grad():
        for alpha in net.alphas:
            alpha.copy_(torch.tensor([-9.0, 9.0]))
    dropped = net.prune(0.1)
    assert ("input0/gate", "on") in dropped
    assert net.knobs()["input0/gate"] == {"off": torch.ones(())}
    net(torch.randn(2, 8))
    assert net.knobs()["input0/gate"] == {"off": torch.ones(())}
    assert net.architecture()["input0/gate"] == "off"
    assert list(net.child().knobs()["input0/gate"]) == ["off"]


# Objectives


def test_an_objective_that_knows_no_knobs_refuses_them_before_anything_happens(
    tmp_path: Path,
) -> None:
    with pytest.raises(UserError, match="'toy' carries out no knobs, so it cannot take 'power'"):
        Run(tmp_path / "run", SPACE, ToyObjective(), Budget(2, 2))
    assert not (tmp_path / "run").exists()


def test_an_objective_refuses_a_knob_by_name(tmp_path: Path) -> None:
    space = SearchSpace("s", "linear", [Choice("colour", ["red"])])
    with pytest.raises(UserError, match="no knob 'colour' here"):
        Run(tmp_path / "run", space, Gated(), Budget(2, 2))


@pytest.mark.parametrize(
    "strategy", [Darts(), RandomSearch(trials=3), Fixed()], ids=lambda s: type(s).__name__
)
def test_strategies_search_knobs(strategy: Strategy, tmp_path: Path) -> None:
    run = Run(tmp_path, SPACE, Gated(), Budget(9, 3), settings={"input1/gate": "off"})
    result = search(run, strategy, baseline="none")
    assert set(result.architecture) == {"f", "power", *GATES}
    assert result.architecture["input1/gate"] == "off"
    kept = load_space(str(tmp_path / "space.yaml"))
    assert kept == run.space
    assert kept.sizes == {"inputs": 3}
    assert kept.validate(Architecture.load(tmp_path / "architecture.yaml")) == result.architecture


def test_darts_keeps_its_promises_with_knobs() -> None:
    check_strategy(Darts(), spaces=[SPACE], objective=Gated, other_process=False)


def test_shipped_spaces_for_any_objective_have_no_knobs() -> None:
    assert "wide" not in {space.name for space in shipped_spaces()}
    assert load_space("wide").knobs
