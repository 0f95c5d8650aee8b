"""When a search has settled, and when it has collapsed."""

from __future__ import annotations

import pytest
import torch

from prefixnas.network.supernet import Supernet
from prefixnas.oneshot.schedule import SCHEDULES, Timetable
from prefixnas.oneshot.stopping import Collapsed, Settled
from prefixnas.space.nodes import Choice, Op, Seq, Stack
from prefixnas.space.space import SearchSpace

CELL = Seq(
    Choice("block", ["linear", "identity", Seq("linear", "gelu")]),
    Choice("f", ["zero", "tanh", Op("dropout", 0.1)]),
    Choice("skip", ["identity", "zero"]),  # equals, and so of no weight
)
SPACE = SearchSpace("s", Stack(2, CELL))


def net_at(**leaders: int) -> Supernet:
    """A supernet whose decisions lead to the given options."""
    net = Supernet(SPACE, 4)
    for decision, alpha in zip(net.decisions, net.alphas, strict=True):
        with torch.no_grad():
            alpha.zero_()
            alpha[leaders.get(decision.name.replace("/", "_"), 0)] = 3.0
    return net


def test_settled_needs_quiet_records() -> None:
    net = net_at()
    settled = Settled(2, 0.05)

    def look(value: float) -> str:
        with torch.no_grad():
            net.alphas[0][0] = value
        return settled.look(net)

    assert [bool(look(value)) for value in (1.0, 2.0, 2.01, 2.02)] == [False, False, False, True]
    assert "settled" in look(2.02)
    assert not look(-1.0)  # another option leads


def test_slow_moves_add_up() -> None:
    """Every record is within the bound of the one before, but not of the first."""
    net, settled = net_at(), Settled(4, 0.05)
    reasons = []
    for value in torch.linspace(0.2, 1.6, 20):
        with torch.no_grad():
            net.alphas[0][0] = value
        reasons.append(settled.look(net))
    assert not any(reasons)


def test_a_change_of_the_leader_within_the_bound_is_no_settling() -> None:
    net, settled = net_at(), Settled(1, 0.5)
    for option in (0, 1):
        with torch.no_grad():
            net.alphas[0].zero_()[option] = 0.01
        assert not settled.look(net)


def test_settled_goes_on_from_its_state() -> None:
    net, whole, first = net_at(), Settled(2, 0.1), Settled(2, 0.1)
    assert not whole.look(net) and not first.look(net)
    assert not whole.look(net) and not first.look(net)
    later = Settled(2, 0.1)
    later.load_state_dict(first.state_dict())
    assert whole.look(net) == later.look(net) != ""


def test_settled_is_off_at_zero() -> None:
    settled = Settled(0, 1.0)
    assert not any(settled.look(net_at()) for _ in range(5))


@pytest.mark.parametrize(
    ("leaders", "weak"),
    [
        ({"layer0_f": 1, "layer1_f": 1}, 0),
        ({"layer0_f": 1, "layer1_f": 2}, 1),
        ({"layer0_f": 0, "layer1_f": 2}, 2),
        ({"layer0_f": 1, "layer1_f": 1, "layer0_block": 1, "layer1_skip": 1}, 1),
        ({"layer0_block": 1, "layer1_block": 1}, 4),
    ],
)
def test_collapsed_counts_weak_leaders(leaders: dict[str, int], weak: int) -> None:
    """Four decisions have options of unequal strength: both blocks and both functions."""
    net = net_at(**leaders)
    for bound in (0.0, 0.25, 0.5, 0.75, 1.0):
        assert bool(Collapsed(net, bound).look(net)) == (weak / 4 > bound)


def test_pruning_the_strong_option_does_not_hide_the_collapse() -> None:
    net = net_at(layer0_f=0, layer1_f=1)
    collapsed = Collapsed(net, 0.2)
    before = collapsed.look(net)
    net.keep("layer0/f", "zero")
    assert "layer0/f" in before == collapsed.look(net)


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_schedules_rise_to_one(name: str) -> None:
    values = [SCHEDULES[name](step / 10) for step in range(11)]
    assert values == sorted(values) and values[-1] == pytest.approx(1)
    assert values[0] == (1.0 if name == "constant" else 0.0)


@pytest.mark.parametrize("passes", [1, 2, 5])
@pytest.mark.parametrize("warmup", [0.0, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("budget", [5, 12, 101])
def test_a_plan_spends_its_budget(budget: int, passes: int, warmup: float) -> None:
    plan = Timetable.of(budget, passes, warmup)
    costs = [plan.cost(step) for step in range(plan.steps)]
    assert budget - passes < sum(costs) <= budget
    assert costs.count(passes) >= 1 and plan.left(plan.steps - 1, 0.3) == pytest.approx(0.3)
    if passes > 1:
        assert costs.index(passes) == plan.warmup <= warmup * budget
