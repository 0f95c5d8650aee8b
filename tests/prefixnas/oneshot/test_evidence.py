"""The test of the alphas' evidence: right about noise, able to find a signal, told at the end."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from prefixnas.network.supernet import Supernet
from prefixnas.oneshot.evidence import Evidence
from prefixnas.run import events
from prefixnas.run.evaluation import Split
from prefixnas.run.objective import Objective
from prefixnas.run.recipe import Recipe
from prefixnas.run.record import read_record
from prefixnas.run.run import Budget, Run
from prefixnas.run.search import search
from prefixnas.run.strategy import Strategy
from prefixnas.space.loading import load_space
from prefixnas.space.nodes import Choice, Seq, Stack
from prefixnas.space.space import SearchSpace
from prefixnas.strategies.darts import Darts
from prefixnas.strategies.two_stage import TwoStage
from prefixnas.testing import ToyObjective
from prefixnas.testing.tabular.config import TabularConfig

SPACE = SearchSpace("s", Stack(3, Seq("linear", Choice("f", ["relu", "tanh", "gelu", "sigmoid"]))))
SAID = "the alphas carry no more information than chance"


@pytest.fixture(scope="module")
def net() -> Supernet:
    return Supernet(SPACE, 4)


def noise(generator: torch.Generator, step: int) -> list[Tensor]:
    """Return gradients without a direction, of lengths that change, alike in two decisions."""
    common = torch.randn(4, generator=generator)
    raw = [torch.randn(4, generator=generator) for _ in range(3)]
    return [(1 + step % 5) * g for g in (common, common + 0.3 * raw[1], 1e-4 * raw[2])]


def shares(net: Supernet, seed: int, steps: int = 25, signal: float = 0.0) -> dict[str, float]:
    """Return the p of each decision, with a pull on the last one."""
    evidence, generator = Evidence(net, seed), torch.Generator().manual_seed(seed)
    for step in range(steps):
        gradients = noise(generator, step)
        gradients[2] += signal * 1e-4 * torch.tensor([1.0, -1.0, 0.0, 0.0])
        evidence.take(gradients)
    found = evidence.found()
    assert found.steps == steps and found.p == min(found.decisions.values())
    return dict(found.decisions)


def test_it_is_calibrated_on_noise(net: Supernet) -> None:
    """One run in twenty has a p up to 0.05 in any of its decisions, and p is even in between."""
    found = np.array([min(shares(net, seed).values()) for seed in range(200)])
    for level in (0.05, 0.2, 0.5):
        spread = (level * (1 - level) / 200) ** 0.5
        assert abs((found <= level).mean() - level) < 3 * spread


def test_it_finds_a_planted_signal_where_it_is(net: Supernet) -> None:
    found = [list(shares(net, seed, signal=4.0).values()) for seed in range(40)]
    first, second, planted = np.array(found).T
    assert (planted <= 0.05).mean() > 0.9
    assert (np.minimum(first, second) <= 0.05).mean() < 0.15


def test_what_has_no_gradient_has_no_evidence(net: Supernet) -> None:
    evidence = Evidence(net, 0)
    for _ in range(20):
        evidence.take([torch.zeros(4)] * 3)
    assert set(evidence.found().decisions.values()) == {1.0}


def test_shifts_of_all_options_are_no_direction(net: Supernet) -> None:
    """On the simplex they move nothing; logits never have them."""
    evidence = Evidence(net, 0)
    for _ in range(20):
        evidence.take([torch.ones(4)] * 3)
    assert evidence.found().p == 1.0


@pytest.mark.parametrize("steps", [1, 3])
def test_a_few_steps_prove_nothing(net: Supernet, steps: int) -> None:
    """All signs alike come up by chance too often."""
    evidence = Evidence(net, 0)
    for _ in range(steps):
        evidence.take([torch.tensor([1.0, 0.0, 0.0, -1.0])] * 3)
    found = evidence.found()
    assert found.p == pytest.approx(2.0 ** (1 - steps), abs=0.1)
    assert f"over {steps} steps" in found.doubt()


def test_it_goes_on_where_it_stopped_and_leaves_the_random_state_alone(net: Supernet) -> None:
    state, generator = torch.get_rng_state(), torch.Generator().manual_seed(0)
    drawn = [noise(generator, step) for step in range(20)]
    whole, part = Evidence(net, 5), Evidence(net, 5)
    for gradients in drawn[:8]:
        whole.take(gradients)
    part.load_state_dict(copy.deepcopy(whole.state_dict()))
    for gradients in drawn[8:]:
        whole.take(gradients)
        part.take(gradients)
    assert whole.found() == part.found()
    for one, other in zip(whole.state_dict().values(), part.state_dict().values(), strict=True):
        assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))
    assert torch.equal(torch.get_rng_state(), state)


def test_it_takes_the_same_memory_after_many_steps(net: Supernet) -> None:
    def size(steps: int) -> int:
        evidence, generator = Evidence(net, 0), torch.Generator().manual_seed(0)
        for step in range(steps):
            evidence.take(noise(generator, step))
        held = evidence.state_dict().values()
        return sum(value.numel() for value in held if isinstance(value, Tensor))

    assert size(1) == size(60)


class Indifferent(ToyObjective):
    """A loss that no module can lower: each batch asks for a direction of its own."""

    def backward(self, split: Split = "train") -> dict[str, float]:
        self._drawn[split] += 1
        generator = torch.Generator().manual_seed(self._drawn[split])
        inputs = torch.randn(8, self.width, generator=generator)
        loss = (self._predict(inputs) * torch.randn(8, 2, generator=generator)).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return {"first": loss.item()}

    def parameters(self) -> list[dict[str, object]]:
        return [{**group, "lr": 1e-9} for group in super().parameters()]


def told(
    folder: Path, strategy: Strategy, objective: Objective, space: SearchSpace, seed: int = 0
) -> tuple[list[events.Evidence], list[str]]:
    """Return the evidence of a whole run, and its warnings."""
    run = Run(folder, space, objective, Budget(60, 4), seed)
    search(run, strategy, Recipe(), baseline="none")
    record = read_record(folder)
    return record.of(events.Evidence), record.warnings()


@pytest.mark.parametrize(
    "strategy", [Darts(), Darts(level="bilevel"), TwoStage(shortlist=2)], ids=["d", "b", "t"]
)
def test_a_search_without_information_says_so(strategy: Strategy, tmp_path: Path) -> None:
    """Two of three at least: one in twenty is taken in by chance."""
    said = 0
    for seed in range(3):
        (found,), warnings = told(tmp_path / str(seed), strategy, Indifferent(), SPACE, seed)
        doubts = [message for message in warnings if SAID in message]
        assert doubts == ([found.doubt()] if found.p > 0.05 else [])
        assert set(found.decisions) == {decision.name for decision in SPACE.decisions}
        said += len(doubts)
    assert said >= 2


INFORMED: dict[str, tuple[Callable[[], Objective], SearchSpace]] = {
    "toy": (ToyObjective, SearchSpace("s", Seq("linear", Choice("f", ["zero", "tanh"])))),
    "tabular": (lambda: TabularConfig().build(60, 0), load_space("tabular")),
}


@pytest.mark.parametrize("problem", INFORMED)
@pytest.mark.parametrize("update", ["logits", "projected"])
def test_a_search_with_information_does_not(problem: str, update: str, tmp_path: Path) -> None:
    objective, space = INFORMED[problem]
    (found,), warnings = told(tmp_path, Darts(update=update), objective(), space)
    assert found.p <= 0.05 and found.steps == 48
    assert not any(SAID in message for message in warnings)
