"""One-path sampling computes what was drawn, and says where it cannot work."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prefixnas.base.errors import UserError
from prefixnas.network.relaxations import OnePath
from prefixnas.network.simplex import Simplex
from prefixnas.network.supernet import Supernet, weights_of
from prefixnas.oneshot.one_path import refuse_norm_behind
from prefixnas.space.nodes import Choice, Op, Seq, Stack, Sum
from prefixnas.space.ops import register_op
from prefixnas.space.space import SearchSpace
from prefixnas.testing import BrokenPromise, RelaxationCheck, shipped_spaces

CALLS: list[str] = []


@register_op("test_watched")
class Watched(nn.Module):
    """Says that it was called."""

    def __init__(self, width: int, name: str) -> None:
        super().__init__()
        self.name = name
        self.linear = nn.Linear(width, width)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        CALLS.append(self.name)
        output: torch.Tensor = self.linear(hidden)
        return output


@register_op("test_watched_function")
class WatchedFunction(nn.Module):
    """The same without weights."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        CALLS.append(self.name)
        return hidden.tanh()


HEAVY = SearchSpace("heavy", Seq(Choice("f", [Op("test_watched", n) for n in "abcd"])))
LIGHT = SearchSpace(
    "light", Seq("linear", Choice("f", [Op("test_watched_function", n) for n in "ab"]))
)
RELAXATIONS = [OnePath(), Simplex(inner=OnePath())]


@pytest.mark.parametrize("relaxation", RELAXATIONS, ids=["logits", "simplex"])
def test_only_the_drawn_candidate_is_computed_and_learns(relaxation: OnePath) -> None:
    torch.manual_seed(0)
    net = Supernet(HEAVY, 4, relaxation)
    seen = set()
    for _ in range(20):
        CALLS.clear()
        net.zero_grad(set_to_none=True)
        hidden = torch.randn(3, 4)
        output = net(hidden)
        output.square().sum().backward()
        (drawn,) = CALLS
        seen.add(drawn)
        part = next(m for m in net.modules() if isinstance(m, Watched) and m.name == drawn)
        torch.testing.assert_close(output, part.linear(hidden))
        trained = [weight for weight in weights_of(net) if weight.grad is not None]
        assert {id(weight) for weight in trained} == {id(w) for w in part.parameters()}
        assert net.alphas[0].grad is not None and bool(net.alphas[0].grad.all())
    assert seen == set("abcd")


def test_the_gradient_is_that_of_the_drawn_weight_alone() -> None:
    """`w_i o_i(x)`: the gradient of alpha is dw_i/dalpha times the loss's along o_i(x)."""
    net = Supernet(HEAVY, 4, OnePath())
    net.progress = 1.0
    hidden, direction = torch.randn(3, 4), torch.randn(3, 4)
    torch.manual_seed(7)
    CALLS.clear()
    (net(hidden) * direction).sum().backward()
    drawn = "abcd".index(CALLS[0])
    torch.manual_seed(7)
    alpha = net.alphas[0].detach().clone().requires_grad_()
    part = next(m for m in net.modules() if isinstance(m, Watched) and m.name == CALLS[0])
    weight = OnePath().weights(alpha, 1.0)[drawn]
    (weight * (part.linear(hidden) * direction).sum().detach()).backward()
    assert net.alphas[0].grad is not None and alpha.grad is not None
    torch.testing.assert_close(net.alphas[0].grad, alpha.grad)


def test_candidates_without_matrices_are_mixed() -> None:
    CALLS.clear()
    Supernet(LIGHT, 4, OnePath())(torch.randn(3, 4))
    assert sorted(CALLS) == ["a", "b"]


def test_evaluation_mixes_all_candidates() -> None:
    CALLS.clear()
    Supernet(HEAVY, 4, OnePath()).eval()(torch.randn(3, 4))
    assert sorted(CALLS) == ["a", "b", "c", "d"]


def test_pruned_candidates_are_never_drawn() -> None:
    net = Supernet(HEAVY, 4, OnePath())
    net.prune(0.0, share=0.5)
    left = {m.name for m in net.modules() if isinstance(m, Watched)}
    assert len(left) == 2
    CALLS.clear()
    for _ in range(20):
        net(torch.randn(3, 4))
    assert set(CALLS) == left


TWO = Choice("op", ["linear", Seq("linear", "gelu")])
BEHIND = {
    "in a row": Seq(TWO, "layer_norm"),
    "at the end of a part": Seq(Seq("gelu", Seq(TWO)), "layer_norm"),
    "in the next cell": Stack(2, Seq("layer_norm", TWO)),
    "inside an option": Seq(Choice("outer", [Seq("gelu", TWO), "identity"]), "layer_norm"),
    "before a choice of norms": Seq(TWO, Choice("norm", ["layer_norm", "identity"])),
    "behind dropout": Seq(TWO, Op("dropout", 0.1), "layer_norm"),
    "behind a relu": Seq(TWO, "relu", "identity", "layer_norm"),
    "behind a choice that lets it through": Seq(
        TWO, Choice("f", ["relu", "identity"]), "layer_norm"
    ),
    "behind dropout in an option": Seq(
        Choice("outer", [Seq(TWO, Op("dropout", 0.1)), "identity"]), "layer_norm"
    ),
    "in a choice in a choice": Seq(
        TWO, Choice("g", [Seq(Choice("norm", ["layer_norm", "tanh"]), "tanh"), "tanh"])
    ),
}


@pytest.mark.parametrize("node", BEHIND.values(), ids=BEHIND)
def test_a_norm_behind_a_sampled_choice_is_refused(node: Seq) -> None:
    with pytest.raises(UserError, match=r"one-path.*'(layer\d/)?(op|outer)'.*gumbel-hard"):
        refuse_norm_behind(Supernet(SearchSpace("s", node), 4, OnePath()))


@pytest.mark.parametrize(
    "node",
    [
        Seq(TWO, "linear", "layer_norm"),
        Seq(TWO, "tanh", "layer_norm"),
        Seq(TWO, Choice("f", ["tanh", "relu"]), "layer_norm"),
        Seq(TWO, Op("dropout", 0.1), "linear", "layer_norm"),
        Seq(Choice("op", [Seq("linear", "layer_norm"), Seq("linear", "gelu", "layer_norm")])),
        Seq("linear", Choice("f", ["relu", "tanh"]), "layer_norm"),
        Seq(Sum(TWO, "identity"), "layer_norm"),
    ],
)
def test_other_places_are_fine(node: Seq) -> None:
    refuse_norm_behind(Supernet(SearchSpace("s", node), 4, OnePath()))


def test_shipped_spaces_are_fine() -> None:
    for space in shipped_spaces():
        refuse_norm_behind(Supernet(space, 4, OnePath()))


@pytest.mark.parametrize("relaxation", RELAXATIONS, ids=["logits", "simplex"])
def test_the_contract_catches_a_norm_behind_a_sampled_choice(relaxation: OnePath) -> None:
    space = SearchSpace("s", BEHIND["in a row"])
    with pytest.raises(BrokenPromise) as caught:
        RelaxationCheck(relaxation, [space]).gradient()
    assert caught.value.promise == "gradient"
