"""Where a tried child has its weights from: a short training, or one supernet for all of them."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from prefixnas.base.errors import UserError
from prefixnas.network.relaxations import SinglePath
from prefixnas.network.supernet import Supernet, build_child
from prefixnas.run import events
from prefixnas.run.recipe import Recipe
from prefixnas.run.run import Budget, Run
from prefixnas.run.training import Best, WeightOptimizer, fit
from prefixnas.space.architecture import Architecture
from prefixnas.space.open_space import OpenSpace
from prefixnas.space.space import SearchSpace


class ChildWeights(ABC):
    """Gives each tried architecture its weights and its score.

    Args:
        run: The run.
        recipe: How weights are trained.
        trials: How many architectures will be tried.

    Attributes:
        together: Whether all candidates train at once.
    """

    together: ClassVar[bool] = False

    @classmethod
    def open_space(cls, space: SearchSpace, settings: Mapping[str, str]) -> OpenSpace:
        """Return what is left open of `space` under `settings`."""
        return OpenSpace(space, settings)

    @classmethod
    @abstractmethod
    def check(cls, space: OpenSpace, budget: Budget, trials: int) -> None:
        """Refuse, before anything is trained, what these weights cannot be had for.

        Raises:
            UserError: The space or the budget does not fit.
        """

    @abstractmethod
    def __init__(self, run: Run, recipe: Recipe, trials: int) -> None: ...

    @abstractmethod
    def score(self, name: str, architecture: Architecture) -> float:
        """Return the score of `architecture` on the split "selection".

        Args:
            name: Unique name of this trial in the run.
            architecture: What is tried.
        """

    @abstractmethod
    def attach(self, architecture: Architecture) -> WeightOptimizer:
        """Attach the module of the best architecture, with the weights it was scored with.

        Returns:
            What moved those weights, with its moments.
        """


class Trained(ChildWeights):
    """Each child is trained from the same start for an equal share of the search budget."""

    @classmethod
    def check(cls, space: OpenSpace, budget: Budget, trials: int) -> None:
        """Refuse more trials than there are search steps."""
        if trials > max(1, budget.search):
            raise UserError(
                f"key 'trials': must be between 1 and the {budget.search} search steps, "
                f"not {trials}"
            )

    def __init__(self, run: Run, recipe: Recipe, trials: int) -> None:
        self._run, self._recipe = run, recipe
        self._share = run.budget.search // trials
        self._best, self._moments = Best(run), Moments()

    def score(self, name: str, architecture: Architecture) -> float:
        """Train a fresh child for its share, and keep its weights if it is the best so far."""
        run, best = self._run, self._best
        run.reset(build_child(run.space, architecture, run.objective.width))
        optimizer = fit(
            run,
            name,
            self._share,
            self._recipe,
            total=run.budget.total,
            counted=True,
            state={"best of all": best, "moments": self._moments},
        )
        score = run.evaluate(name, "selection").score
        if best.look(score, architecture.choices):
            self._moments.kept = copy.deepcopy(optimizer.state_dict())
        return score

    def attach(self, architecture: Architecture) -> WeightOptimizer:
        """Attach the child that was kept, with all other weights as they were trained with it."""
        run = self._run
        run.reset(build_child(run.space, architecture, run.objective.width))
        self._best.restore()
        optimizer = WeightOptimizer(run, self._recipe, run.budget.total)
        optimizer.load_state_dict(self._moments.kept)
        return optimizer


class Moments:
    """The state of the optimiser of the best child, for checkpoints."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return it."""
        return self.kept

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put it back."""
        self.kept = state


class OneShot(ChildWeights):
    """All children are cut out of one supernet, trained on one uniformly drawn path per step.

    The whole search budget goes into the supernet; a child is scored with the weights that it
    inherits and no training of its own (single path one-shot, Guo et al., ECCV 2020).
    """

    together: ClassVar[bool] = True

    @classmethod
    def open_space(cls, space: SearchSpace, settings: Mapping[str, str]) -> OpenSpace:
        """Hold what a supernet holds: one option of each choice that is decided by trial."""
        return OpenSpace(space, {**_first_of_trial(space), **space.settle(settings)})

    @classmethod
    def check(cls, space: OpenSpace, budget: Budget, trials: int) -> None:
        """Refuse a space without choices for a supernet, and a budget without a step."""
        if space.count(2) < 2:
            raise UserError(
                f"key 'weights': a supernet of space {space.space.name!r} holds one architecture "
                "alone; choices decided by trial need weights 'train'"
            )
        if budget.search < 1:
            raise UserError("key 'weights': one-shot needs search steps; raise search_fraction")

    def __init__(self, run: Run, recipe: Recipe, trials: int) -> None:
        self._run = run
        self._net = Supernet(run.space, run.objective.width, SinglePath(), run.settings)
        run.once("warned of held choices", self._warn)
        run.reset(self._net)
        weights, steps = WeightOptimizer(run, recipe, run.budget.total), run.budget.search
        for step in run.steps("supernet", steps, {"weights": weights}):
            losses = weights.gradients(step, "train", "supernet")
            weights.step(step)
            run.emit(events.Step.of("supernet", step, steps, losses, weights.rate))
        self._optimizer = weights

    def score(self, name: str, architecture: Architecture) -> float:
        """Score the child with the weights that it inherits."""
        self._run.replace(self._net.cut(architecture))
        return self._run.evaluate(name, "selection").score

    def attach(self, architecture: Architecture) -> WeightOptimizer:
        """Attach the child with the weights that it inherits."""
        self._run.replace(self._net.cut(architecture))
        return self._optimizer

    def _warn(self) -> None:
        held = _first_of_trial(self._run.space)
        for name in self._run.space.settle(self._run.settings):
            held.pop(name, None)
        if held:
            listing = ", ".join(f"{name}={option}" for name, option in held.items())
            message = f"a supernet holds one option of a choice decided by trial: {listing}"
            self._run.emit(events.Warning(message))


def _first_of_trial(space: SearchSpace) -> dict[str, str]:
    by_trial = (d for d in space.decisions if d.decided_by == "trial" and len(d.options) > 1)
    return {decision.name: decision.options[0] for decision in by_trial}


WEIGHTS: Mapping[str, type[ChildWeights]] = {"train": Trained, "one-shot": OneShot}
"""The ways to give a tried child its weights, by name."""
