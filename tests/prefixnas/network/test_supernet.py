"""Supernets against hand computation, and the children cut out of them."""

from __future__ import annotations

import copy
import random
from collections import Counter

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import HealthCheck, given, settings
from torch import Tensor, nn

from prefixnas.base.errors import UserError
from prefixnas.network.relaxations import RELAXATIONS
from prefixnas.network.supernet import Supernet, build_child, check_operations, weights_of
from prefixnas.space.architecture import Architecture
from prefixnas.space.loading import load_space
from prefixnas.space.nodes import Choice, Op, Seq, Stack, Sum
from prefixnas.space.ops import register_op
from prefixnas.space.space import SearchSpace
from prefixnas.testing import ToyObjective, shipped_spaces
from tests.prefixnas.space.random_spaces import spaces

CALLS: Counter[str] = Counter()
FLOOR = 1e-4
"""What every alpha's mean gradient must exceed on the toy objective."""


@register_op("test_even")
class Even(nn.Module):
    """Takes an even width, as a user's operation may."""

    def __init__(self, width: int) -> None:
        if width % 2:
            raise ValueError(f"takes an even width, not {width}")
        super().__init__()


@register_op("test_counted")
class Counted(nn.Linear):
    def __init__(self, width: int, name: str) -> None:
        super().__init__(width, width)
        self.called = name

    def forward(self, hidden: Tensor) -> Tensor:
        CALLS[self.called] += 1
        return super().forward(hidden)


COUNTED = SearchSpace(
    "counted", Seq("linear", Choice("f", [Op("test_counted", name) for name in "abc"]))
)
LABELS = ["test_counted(a)", "test_counted(b)", "test_counted(c)"]


def activations(layers: int = 1) -> SearchSpace:
    cell = Seq("linear", Choice("f", ["relu", "tanh", "sigmoid"]))
    return SearchSpace("activations", Stack(layers, cell))


def set_alpha(net: Supernet, index: int, values: list[float]) -> None:
    with torch.no_grad():
        net.alphas[index].copy_(torch.tensor(values))


# The mixture


def test_mixture_by_hand() -> None:
    net = Supernet(activations(2), 5).double()
    hidden = torch.randn(4, 5, dtype=torch.float64)
    state = {name: value.detach().numpy() for name, value in net.root.state_dict().items()}
    by_hand = hidden.numpy()
    for layer, alpha in enumerate(net.alphas):
        weight, bias = (state[f"parts.{layer}.parts.0.{kind}"] for kind in ("weight", "bias"))
        linear = by_hand @ weight.T + bias
        candidates = [np.maximum(linear, 0), np.tanh(linear), 1 / (1 + np.exp(-linear))]
        exps = np.exp(alpha.detach().numpy())
        by_hand = sum(w * c for w, c in zip(exps / exps.sum(), candidates, strict=True))
    np.testing.assert_allclose(net(hidden).detach().numpy(), by_hand, rtol=1e-12)


def test_alpha_gradient_by_finite_differences() -> None:
    net = Supernet(activations(), 3).double()
    hidden = torch.randn(4, 3, dtype=torch.float64)
    alpha = net.alphas[0]

    def loss(values: Tensor) -> Tensor:
        state = {"alphas.0": values}
        result: Tensor = torch.func.functional_call(net, state, hidden).square().sum()
        return result

    assert torch.autograd.gradcheck(loss, alpha.detach().clone().requires_grad_())


def test_sum_adds_its_branches() -> None:
    space = SearchSpace("s", Sum("identity", Choice("f", ["zero", "tanh"])))
    net = Supernet(space, 3)
    set_alpha(net, 0, [0.0, 0.0])
    hidden = torch.randn(2, 3)
    torch.testing.assert_close(net(hidden), hidden + 0.5 * hidden.tanh())


def test_shared_layers_follow_one_alpha_with_weights_of_their_own() -> None:
    cell = Seq("linear", Choice("f", ["relu", "tanh"]))
    net = Supernet(SearchSpace("s", Stack(3, cell, shared=True)), 4)
    assert len(net.alphas) == 1
    assert sum(w.numel() for w in weights_of(net)) == 3 * (16 + 4)


def test_default_space_shares_its_linear_layers_between_candidates() -> None:
    space = load_space("default")
    net, child = Supernet(space, 16), build_child(space, space.first(), 16)
    assert sum(w.numel() for w in weights_of(net)) == sum(w.numel() for w in weights_of(child))


def test_paper_space_gives_every_candidate_weights() -> None:
    space = load_space("paper")
    net, child = Supernet(space, 16), build_child(space, space.first(), 16)
    assert sum(w.numel() for w in weights_of(net)) == 12 * sum(w.numel() for w in weights_of(child))


def test_weights_hold_no_alphas() -> None:
    net = Supernet(load_space("default"), 4)
    own = {id(weight) for weight in weights_of(net)}
    assert not own & {id(alpha) for alpha in net.alphas}
    assert len(own) + len(net.alphas) == len(list(net.parameters()))


# Children


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(spaces())
def test_child_is_what_its_architecture_builds(space: SearchSpace) -> None:
    net = Supernet(space, 4).eval()
    held = {**net.settings}
    rng = random.Random(0)
    chosen = space.choose(lambda d: held.get(d.name) or rng.choice(d.options))
    child = net.child(chosen)
    fresh = build_child(space, chosen, 4).eval()
    assert list(child.state_dict()) == list(fresh.state_dict())
    fresh.load_state_dict(child.state_dict())
    hidden = torch.randn(3, 4)
    assert torch.equal(fresh(hidden), child(hidden))


def test_child_equals_a_mixture_that_has_settled() -> None:
    space = load_space("sensitivity")
    net = Supernet(space, 6).eval()
    target = space.sample(random.Random(3))
    with torch.no_grad():
        for decision, alpha in zip(net.decisions, net.alphas, strict=True):
            chosen = decision.options.index(target[decision.name])
            alpha.copy_(60.0 * torch.eye(len(alpha))[chosen])
    assert net.architecture() == target
    hidden = torch.randn(3, 6)
    torch.testing.assert_close(net.child()(hidden), net(hidden))


def test_child_shares_no_weights_and_can_be_copied() -> None:
    net = Supernet(activations(), 3)
    child = net.child()
    before = child(torch.ones(1, 3)).detach()
    with torch.no_grad():
        for weight in weights_of(net):
            weight.zero_()
    assert torch.equal(child(torch.ones(1, 3)), before)
    assert torch.equal(copy.deepcopy(child)(torch.ones(1, 3)), before)


def test_child_of_another_space_is_refused() -> None:
    net = Supernet(activations(), 3)
    with pytest.raises(UserError, match="unknown option 'gelu'"):
        net.child(Architecture({"layer0/f": "gelu"}, "activations"))


# What is not mixed


def test_trial_choices_are_held_as_set_or_at_the_first_option() -> None:
    space = load_space("default")
    net = Supernet(space, 4)
    assert {decision.decided_by for decision in net.decisions} == {"alpha"}
    assert {net.architecture()[f"layer{i}/dropout"] for i in range(6)} == {"dropout(0.1)"}
    net = Supernet(space, 4, settings={"dropout": "dropout(0.5)", "layer0/dropout": "dropout(0.3)"})
    assert [net.architecture()[f"layer{i}/dropout"] for i in range(3)] == [
        "dropout(0.3)",
        "dropout(0.5)",
        "dropout(0.5)",
    ]
    rates = [module.p for module in net.modules() if isinstance(module, nn.Dropout)]
    assert rates == [0.3, 0.5, 0.5, 0.5, 0.5, 0.5]
    with pytest.raises(UserError, match="this supernet holds 'layer0/dropout'"):
        net.child(space.first())


def test_an_alpha_choice_that_is_set_is_not_mixed() -> None:
    net = Supernet(activations(2), 3, settings={"layer0/f": "tanh"})
    assert [decision.name for decision in net.decisions] == ["layer1/f"]
    assert net.architecture()["layer0/f"] == "tanh"
    hidden = torch.randn(2, 3)
    first = net.get_submodule("root.parts.0.parts.0")(hidden).tanh()
    set_alpha(net, 0, [0.0, 90.0, 0.0])
    by_hand = net.get_submodule("root.parts.1.parts.0")(first).tanh()
    torch.testing.assert_close(net(hidden), by_hand)
    torch.testing.assert_close(net.child()(hidden), by_hand)


def test_choices_inside_an_option_that_was_not_taken_have_no_alpha() -> None:
    outer = Choice("outer", [Seq("linear", Choice("in", ["relu", "tanh"])), "identity"], "trial")
    space = SearchSpace("s", outer)
    assert len(Supernet(space, 3).decisions) == 1
    assert not Supernet(space, 3, settings={"outer": "identity"}).decisions


def test_check_operations_finds_wrong_parameters_of_any_candidate() -> None:
    space = SearchSpace("s", Choice("f", ["relu", Op("test_even")]))
    check_operations(space, 4)
    with pytest.raises(UserError, match=r"'test_even' cannot be built .*an even width, not 5"):
        check_operations(space, 5)


def test_check_operations_refuses_widths_beyond_all_measure() -> None:
    wider = SearchSpace("s", Stack(9, Op("linear", factor=64)))
    with pytest.raises(UserError, match="at most 1,000,000"):
        check_operations(wider, 8)


# Pruning


def test_a_pruned_candidate_is_never_called() -> None:
    net = Supernet(COUNTED, 4)
    set_alpha(net, 0, [0.0, -5.0, 0.1])
    CALLS.clear()
    net(torch.ones(1, 4))
    assert CALLS == {"a": 1, "b": 1, "c": 1}
    size = len(weights_of(net))
    assert net.prune(0.05) == [("f", LABELS[1])]
    assert net.prune(0.05) == []
    CALLS.clear()
    net(torch.ones(1, 4))
    assert CALLS == {"a": 1, "c": 1}
    assert len(weights_of(net)) == size - 2
    assert net.probabilities()["f"][1] == 0
    assert net.probabilities()["f"].sum().item() == pytest.approx(1)
    with pytest.raises(UserError, match=r"'test_counted\(b\)' of 'f' was pruned"):
        net.child(Architecture({"f": LABELS[1]}, "counted"))


def test_the_last_candidate_is_never_pruned() -> None:
    net = Supernet(COUNTED, 4)
    set_alpha(net, 0, [0.0, 9.0, 0.1])
    assert len(net.prune(0.3)) == 2
    assert net.architecture() == Architecture({"f": LABELS[1]}, "counted")
    assert net.prune(1.1) == []
    CALLS.clear()
    expected = net.child()(torch.ones(1, 4))
    assert torch.equal(net(torch.ones(1, 4)), expected)
    assert CALLS == {"b": 2}


def test_a_pruned_supernet_is_restored_from_its_state() -> None:
    net = Supernet(COUNTED, 4)
    set_alpha(net, 0, [0.0, -5.0, 0.1])
    net.prune(0.05)
    other = Supernet(COUNTED, 4)
    other.load_state_dict(net.state_dict())
    hidden = torch.randn(2, 4)
    assert torch.equal(other(hidden), net(hidden))
    assert other.alive(0).tolist() == [True, False, True]


# Entropy


def test_entropy_against_scipy() -> None:
    net = Supernet(activations(2), 3)
    set_alpha(net, 0, [0.3, -1.0, 2.0])
    set_alpha(net, 1, [0.0, 0.0, 0.0])
    expected = [scipy.stats.entropy(np.exp([0.3, -1.0, 2.0])), np.log(3)]
    values = [value.item() for value in net.entropies().values()]
    assert values == pytest.approx(expected, rel=1e-5)
    assert net.entropy().item() == pytest.approx(sum(expected), rel=1e-5)


def test_entropy_leaves_pruned_options_out_and_stays_differentiable() -> None:
    net = Supernet(activations(), 3)
    set_alpha(net, 0, [0.0, 0.0, -200.0])
    net.prune(0.01)
    net.entropy().backward()
    assert net.entropy().item() == pytest.approx(np.log(2))
    gradient = net.alphas[0].grad
    assert gradient is not None
    assert gradient.isfinite().all()


def test_a_step_down_the_entropy_sharpens() -> None:
    net = Supernet(activations(), 3)
    set_alpha(net, 0, [0.2, 0.0, -0.1])
    before = net.entropy()
    before.backward()
    gradient = net.alphas[0].grad
    assert gradient is not None
    with torch.no_grad():
        net.alphas[0] -= 0.1 * gradient
    assert net.entropy() < before


# Gradients


@pytest.mark.parametrize("relaxation", RELAXATIONS.names())
@pytest.mark.parametrize("space", shipped_spaces(), ids=lambda space: space.name)
def test_every_alpha_receives_a_gradient(space: SearchSpace, relaxation: str) -> None:
    torch.manual_seed(0)
    objective = ToyObjective()
    net = Supernet(space, objective.width, RELAXATIONS.get(relaxation)())
    objective.reset(net, 0)
    total = [torch.zeros_like(alpha) for alpha in net.alphas]
    for _ in range(15):
        net.zero_grad()
        objective.backward("train")
        for alpha, sums in zip(net.alphas, total, strict=True):
            assert alpha.grad is not None
            sums += alpha.grad.abs() / 15
    smallest = min(sums.min().item() for sums in total)
    assert smallest > FLOOR


def test_a_collapsed_gradient_is_below_the_floor() -> None:
    """The trap that the floor is for: one path alone, its weight undone by LayerNorm behind it."""
    torch.manual_seed(0)
    hidden, target = torch.randn(4, 8), torch.randn(4, 8)

    def gradient(behind: nn.Module) -> float:
        alpha = torch.zeros(2, requires_grad=True)
        weight = torch.softmax(alpha, 0)[0]
        (behind(weight / weight.detach() * hidden) - target).square().mean().backward()
        assert alpha.grad is not None
        return alpha.grad.abs().max().item()

    assert gradient(nn.LayerNorm(8)) < FLOOR < 1e-2 * gradient(nn.Identity())


@pytest.mark.parametrize("count", [4, 10, 21, 40])
def test_equal_candidates_are_not_pruned_however_many_there_are(count: int) -> None:
    options = [Op("dropout", number / 100) for number in range(count)]
    net = Supernet(SearchSpace("w", Seq("linear", Choice("f", options))), 8)
    assert net.prune(0.05) == []
    with torch.no_grad():
        net.alphas[0][0] -= 5
    assert [option for _, option in net.prune(0.05)] == [net.decisions[0].options[0]]
