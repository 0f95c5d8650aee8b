"""Successive halving: short trainings that go on for those who do well."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from prefixnas.network.supernet import build_child
from prefixnas.run import events
from prefixnas.run.recipe import Recipe
from prefixnas.run.run import Run
from prefixnas.run.training import WeightOptimizer, fit
from prefixnas.space.architecture import Architecture


def rounds(count: int, factor: int) -> list[int]:
    """Return how many contestants there are in each round, until one is left: 8, 4, 2."""
    sizes = []
    while count > 1:
        sizes.append(count)
        count = math.ceil(count / factor)
    return sizes


class Contest:
    """Architectures whose trainings stop and go on, each with all weights of its own.

    A part of the checkpoint of every training in it.

    Args:
        run: The run.
        recipe: How weights are trained.
        architectures: The contestants, called by their places in this sequence.

    Attributes:
        architectures: The contestants.
    """

    def __init__(self, run: Run, recipe: Recipe, architectures: Sequence[Architecture]) -> None:
        self._run, self._recipe, self.architectures = run, recipe, architectures
        self._kept: dict[str, Any] = {}
        self._steps = [0] * len(architectures)

    def train(self, phase: str, place: int, steps: int) -> float:
        """Let the training of one contestant go on where it stopped.

        Args:
            phase: Unique name of this training.
            place: Which contestant.
            steps: How many steps; they count against the search budget.

        Returns:
            The score on the split "selection" afterwards.
        """
        run, choices = self._run, self.architectures[place].choices
        run.once(f"told of {phase}", partial(run.emit, events.Trial(phase, choices)))
        optimizer = fit(
            run,
            phase,
            steps,
            self._recipe,
            before=self._steps[place],
            total=run.budget.total,
            counted=True,
            state={"contest": self},
            former=self.attach(place),
        )
        self._steps[place] += steps
        module = run.module
        assert module is not None
        self._kept[str(place)] = copy.deepcopy(
            {
                "objective": run.objective.state_dict(),
                "module": module.state_dict(),
                "optimizer": optimizer.state_dict(),
            }
        )
        return run.evaluate(phase, "selection").score

    def attach(self, place: int) -> WeightOptimizer:
        """Attach a contestant with its weights, fresh ones before its first training.

        Returns:
            What moved them last.
        """
        run = self._run
        module = build_child(run.space, self.architectures[place], run.objective.width)
        run.reset(module)
        kept = self._kept.get(str(place))
        if kept is not None:
            run.objective.load_state_dict(kept["objective"])
            module.load_state_dict(kept["module"])
        optimizer = WeightOptimizer(run, self._recipe, run.budget.total)
        if kept is not None:
            optimizer.load_state_dict(copy.deepcopy(kept["optimizer"]))
        return optimizer

    def keep_best(self, scores: Mapping[int, float], count: int) -> list[int]:
        """Forget all but the best; of equals, the first. A score that is no number is the worst.

        Args:
            scores: By contestant.
            count: How many stay.

        Returns:
            Those who stay, in their order.
        """
        ranked = sorted(
            scores, key=lambda place: math.inf if math.isnan(scores[place]) else -scores[place]
        )
        stay = sorted(ranked[:count])
        self._kept = {name: kept for name, kept in self._kept.items() if int(name) in stay}
        return stay

    def state_dict(self) -> dict[str, Any]:
        """Return the weights of all who are left."""
        return {"kept": self._kept, "steps": self._steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore them."""
        self._kept, self._steps = dict(state["kept"]), list(state["steps"])
