"""Strategies, relaxations and objectives that break one promise each, for tests of the contracts.

They stand in a module of their own because another process must be able to import them.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prefixnas.network.relaxations import Relaxation, Softmax
from prefixnas.network.supernet import Supernet, build_child
from prefixnas.run.evaluation import Evaluation, Split
from prefixnas.run.events import Other
from prefixnas.run.recipe import Recipe
from prefixnas.run.run import Run
from prefixnas.run.strategy import Found, Strategy
from prefixnas.run.training import WeightOptimizer, fit
from prefixnas.space.architecture import Architecture
from prefixnas.strategies.random import RandomSearch
from prefixnas.testing import ToyObjective


def settled(run: Run, pick: Mapping[str, str]) -> Architecture:
    fixed = run.space.settle(run.settings)
    return run.space.choose(lambda d: fixed.get(d.name) or pick.get(d.name) or d.options[0])


def attach(run: Run, architecture: Architecture) -> Found:
    run.reset(build_child(run.space, architecture, run.objective.width))
    return Found(architecture)


@dataclass(frozen=True)
class Spendthrift(Strategy):
    """Draws batches past its budget in a loop of its own."""

    def search(self, run: Run, recipe: Recipe) -> Found:
        found = attach(run, settled(run, {}))
        for _ in range(run.budget.search + 1):
            run.objective.backward("train")
        return found


@dataclass(frozen=True)
class Uncounted(Strategy):
    """Stays within the budget but does not count what it spends."""

    def search(self, run: Run, recipe: Recipe) -> Found:
        found = attach(run, settled(run, {}))
        run.objective.backward("train")
        return found


@dataclass(frozen=True)
class Overrun(Strategy):
    """Asks the run for more steps than there are."""

    def search(self, run: Run, recipe: Recipe) -> Found:
        found = attach(run, settled(run, {}))
        fit(run, "too long", run.budget.search + 5, recipe, counted=True)
        return found


@dataclass(frozen=True)
class HashOrder(Strategy):
    """Takes the first option of a set of texts, another set for each decision."""

    def search(self, run: Run, recipe: Recipe) -> Found:
        sets = {d.name: {(d.name, option) for option in d.options} for d in run.space.decisions}
        pick = {name: next(iter(options))[1] for name, options in sets.items()}
        return attach(run, settled(run, pick))


@dataclass(frozen=True)
class GlobalRandom(Strategy):
    """Draws from Python's own generator, which nothing seeds."""

    def search(self, run: Run, recipe: Recipe) -> Found:
        pick = {d.name: random.choice(d.options) for d in run.space.decisions}
        return attach(run, settled(run, pick))


@dataclass(frozen=True)
class Unknown(Strategy):
    """Returns an architecture with an option that the space does not have."""

    def search(self, run: Run, recipe: Recipe) -> Found:
        found = attach(run, settled(run, {}))
        name = next(iter(found.architecture))
        wrong = {**found.architecture.choices, name: "convolution"}
        return Found(Architecture(wrong, run.space.name))


@dataclass(frozen=True)
class Mismatch(Strategy):
    """Attaches another module than the one it returns."""

    def search(self, run: Run, recipe: Recipe) -> Found:
        name = next(d for d in run.space.decisions if d.decided_by == "alpha").name
        options = next(d.options for d in run.space.decisions if d.name == name)
        attach(run, settled(run, {name: options[1]}))
        return Found(settled(run, {}))


@dataclass(frozen=True)
class Behind(Strategy):
    """Gives the module to the objective without telling the run."""

    def search(self, run: Run, recipe: Recipe) -> Found:
        found = attach(run, settled(run, {}))
        run.objective.replace(build_child(run.space, found.architecture, run.objective.width))
        return found


@dataclass(frozen=True)
class Gradients(Strategy):
    """A plain joint search with room for mistakes in what happens to the alphas."""

    def search(self, run: Run, recipe: Recipe) -> Found:
        net = self.net(run)
        run.reset(net)
        weights = WeightOptimizer(run, recipe, run.budget.total)
        alphas = torch.optim.SGD([a for a in net.alphas if a.requires_grad], 0.1)
        for step in run.steps("search", run.budget.search, {"weights": weights}):
            alphas.zero_grad()
            weights.gradients(step, "train", "search")
            self.spoil(net)
            alphas.step()
            weights.step(step)
        choices = run.once("choice", lambda: net.architecture().choices)
        architecture = Architecture(choices, run.space.name)
        run.replace(net.child(architecture))
        return Found(architecture)

    def net(self, run: Run) -> Supernet:
        return Supernet(run.space, run.objective.width, settings=run.settings)

    def spoil(self, net: Supernet) -> None:
        pass


@dataclass(frozen=True)
class Frozen(Gradients):
    """One alpha gets no gradient at all."""

    def net(self, run: Run) -> Supernet:
        net = super().net(run)
        net.alphas[0].requires_grad_(False)
        return net


@dataclass(frozen=True)
class Still(Gradients):
    """One alpha gets a gradient that is thrown away."""

    def spoil(self, net: Supernet) -> None:
        net.alphas[-1].grad = None


class Starved(Softmax):
    """The last option's weight carries no gradient."""

    def weights(self, alpha: Tensor, progress: float) -> Tensor:
        soft = super().weights(alpha, progress)
        free = torch.cat([alpha[:-1], alpha[-1:].detach()])
        return soft.detach() + free - free.detach()


@dataclass(frozen=True)
class StarvedSearch(Gradients):
    """The last option of every decision gets a gradient of zero."""

    def net(self, run: Run) -> Supernet:
        return Supernet(run.space, run.objective.width, Starved(), run.settings)


@dataclass(frozen=True)
class Forgetful(Strategy):
    """Keeps a moving score in a local variable that no checkpoint holds."""

    def search(self, run: Run, recipe: Recipe) -> Found:
        found = attach(run, settled(run, {}))
        weights, total = WeightOptimizer(run, recipe, run.budget.total), 0.0
        for step in run.steps("search", run.budget.search, {"weights": weights}):
            total += sum(weights.gradients(step, "train", "search").values())
            weights.step(step)
            run.emit(Other("progress", {"total": total}))
        return found


@dataclass(frozen=True)
class Moody(Strategy):
    """Holds its state in the object, so that a second run goes on where the first one ended."""

    seen: list[int] = field(default_factory=list)

    def search(self, run: Run, recipe: Recipe) -> Found:
        self.seen.append(1)
        run.once("seen", lambda: run.emit(Other("seen", {"times": len(self.seen)})))
        return attach(run, settled(run, {}))


@dataclass(frozen=True)
class Peeking(Strategy):
    """Chooses by the validation score."""

    def search(self, run: Run, recipe: Recipe) -> Found:
        decision = run.space.decisions[0]
        scores = {}
        for option in decision.options:
            attach(run, settled(run, {decision.name: option}))
            scores[option] = run.evaluate(option, "validation").score
        return attach(run, settled(run, {decision.name: max(scores, key=lambda o: scores[o])}))


@dataclass(frozen=True)
class Stubborn(Strategy):
    """Takes no notice of what is set by hand."""

    def search(self, run: Run, recipe: Recipe) -> Found:
        return attach(run, run.space.first())


@dataclass(frozen=True)
class OneSeed(Strategy):
    """Replaces the run's seed by a constant."""

    def search(self, run: Run, recipe: Recipe) -> Found:
        torch.manual_seed(0)
        found = attach(run, settled(run, {}))
        run.objective.reset(run.module, 0)
        return found


@dataclass(frozen=True)
class Opaque(RandomSearch):
    """Has an option that no configuration file can hold."""

    anything: object = object()


@dataclass(frozen=True)
class Validating(Gradients):
    """Trains on the validation split."""

    def spoil(self, net: Supernet) -> None:
        raise AssertionError("not reached")

    def search(self, run: Run, recipe: Recipe) -> Found:
        found = attach(run, settled(run, {}))
        for _ in run.steps("search", 1):
            run.objective.backward("validation")
        return found


# Relaxations


class Unnormalised(Softmax):
    def weights(self, alpha: Tensor, progress: float) -> Tensor:
        return torch.sigmoid(alpha)


class Noisy(Softmax):
    def expected(self, alpha: Tensor) -> Tensor:
        return torch.softmax(alpha + torch.randn_like(alpha), -1)


class Reversed(Softmax):
    def weights(self, alpha: Tensor, progress: float) -> Tensor:
        return torch.softmax(-alpha, -1)


class PythonRandom(Softmax):
    def weights(self, alpha: Tensor, progress: float) -> Tensor:
        return torch.softmax(alpha / (0.5 + random.random()), -1)


@dataclass(frozen=True)
class Blurring(Softmax):
    temperature_start: float = 0.3
    temperature_end: float = 3.0


class Cut(Relaxation):
    def weights(self, alpha: Tensor, progress: float) -> Tensor:
        return torch.softmax(alpha.detach(), -1) + 0 * alpha


# Objectives


class Shaken(ToyObjective):
    def evaluate(self, split: Split) -> Evaluation:
        torch.rand(1)
        return super().evaluate(split)


class Seedless(ToyObjective):
    def reset(self, module: nn.Module | None, seed: int) -> None:
        super().reset(module, 0)


class Shared(ToyObjective):
    """One counter for both splits."""

    def backward(self, split: Split = "train") -> dict[str, float]:
        losses = super().backward(split)
        self._drawn = dict.fromkeys(self._drawn, max(self._drawn.values()))
        return losses


class Amnesiac(ToyObjective):
    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "drawn": {"train": 0, "selection": 0}}


class Overwriting(ToyObjective):
    def backward(self, split: Split = "train") -> dict[str, float]:
        for group in self.parameters():
            for parameter in group["params"]:
                parameter.grad = None
        return super().backward(split)


class Restarting(ToyObjective):
    def replace(self, module: nn.Module | None) -> None:
        super().replace(module)
        nn.init.normal_(self._head.weight)


class HalfTrained(ToyObjective):
    def parameters(self) -> list[dict[str, Any]]:
        (group,) = super().parameters()
        return [{**group, "params": group["params"][:2]}]


class Renamed(ToyObjective):
    """Calls itself resized."""

    def alone(self, weights: int) -> ToyObjective:
        made = Renamed()
        made.without_label = f"linear alone, {weights} weights"
        return made


class Pickled(ToyObjective):
    def save(self, folder: Path) -> None:
        torch.save(self._head.state_dict(), folder / "head.pt")


class Ignoring(ToyObjective):
    """Takes a module and never calls it."""

    def _predict(self, inputs: Tensor) -> Tensor:
        predicted: Tensor = self._head(inputs)
        return predicted
