"""Training an attached module: one optimiser step, and a loop that keeps the best weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from prefixnas.base.errors import UserError
from prefixnas.run.checkpoint import Stateful
from prefixnas.run.evaluation import Split
from prefixnas.run.events import Step
from prefixnas.run.loop import refuse_nan
from prefixnas.run.optimizer import make_optimizer, read_options
from prefixnas.run.recipe import Recipe
from prefixnas.run.run import Run


class WeightOptimizer:
    """The recipe's optimiser on the objective's weights, one joint step at a time.

    Args:
        run: The run, with a module attached.
        recipe: Optimiser, learning-rate shape and clipping.
        total: Steps of the whole run, which the learning rate's shape spans.
        former: The optimiser that moved these weights until now. Its moments are kept for every
            weight that goes on: AdamW without them takes its first steps at full length,
            whatever the gradient, and undoes part of what was learned.

    Attributes:
        inner: The optimiser of torch.
        norm: Norm of the gradient in the last step, before it was clipped; None before the first.
    """

    def __init__(
        self, run: Run, recipe: Recipe, total: int, former: WeightOptimizer | None = None
    ) -> None:
        self.run, self.recipe, self.total = run, recipe, total
        self.norm: float | None = None
        options = read_options(recipe.optimizer, recipe.optimizer_options)
        self.inner = make_optimizer(recipe.optimizer, run.objective.parameters(), options)
        known = former.inner.state if former is not None else {}
        for group in self.inner.param_groups:
            kept = {weight: known[weight] for weight in group["params"] if weight in known}
            self.inner.state.update(kept)
        self._rates = [group["lr"] for group in self.inner.param_groups]

    @property
    def rate(self) -> float:
        """The first group's current learning rate."""
        return float(self.inner.param_groups[0]["lr"])

    def rates(self, step: int) -> list[float]:
        """Return each group's learning rate at `step`, counted from the start of the run."""
        return [self.recipe.rate(step, self.total, rate) for rate in self._rates]

    def gradients(self, step: int, split: Split, phase: str) -> dict[str, float]:
        """Clear, then compute the gradients of the joint loss; return the losses.

        Raises:
            UserError: A loss is NaN or infinite.
        """
        self.inner.zero_grad(set_to_none=True)
        losses = self.run.objective.backward(split)
        refuse_nan(losses, phase, step, self.run.folder)
        return losses

    def step(self, step: int) -> None:
        """Move the weights; `step` counts from the start of the run.

        Raises:
            UserError: The gradient holds NaN or infinity, which would spoil all weights.
        """
        parameters: Iterable[Tensor] = (
            parameter for group in self.inner.param_groups for parameter in group["params"]
        )
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.recipe.clip)
        if not torch.isfinite(norm):
            raise UserError(
                f"the gradient became {norm.item()} at step {step}; the last good checkpoint stays "
                f"in {self.run.folder / 'checkpoint'}; a lower learning rate may help"
            )
        self.norm = norm.item()
        for group, rate in zip(self.inner.param_groups, self.rates(step), strict=True):
            group["lr"] = rate
        self.inner.step()
        self.run.objective.stepped(step)

    def state_dict(self) -> dict[str, Any]:
        """Return the optimiser's state."""
        return self.inner.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore it."""
        self.inner.load_state_dict(dict(state))


class Best:
    """The best score so far, how long ago that was, and, if asked for, the weights it belongs to.

    Args:
        run: The run.
        keep: Whether to keep the weights: the objective's and the attached module's.

    Attributes:
        score: The best score; None before the first look.
        tag: What the caller wanted to remember with it (an architecture's choices, say).
        waited: Looks since the score rose last.
    """

    def __init__(self, run: Run, keep: bool = True) -> None:
        self.run, self.keep = run, keep
        self.score: float | None = None
        self.tag: Any = None
        self.waited = 0
        self._kept: dict[str, Any] = {}

    def look(self, score: float, tag: Any = None) -> bool:
        """Take a score; the weights stay if it is at least as good as the best; NaN is worst.

        Returns:
            Whether it is at least as good.
        """
        score = float("-inf") if math.isnan(score) else score
        better = self.score is None or score > self.score
        self.waited = 0 if better else self.waited + 1
        if not better and score != self.score:
            return False
        self.score, self.tag = score, tag
        if self.keep:
            state = {"objective": self.run.objective.state_dict(), "module": {}}
            if self.run.module is not None:
                state["module"] = self.run.module.state_dict()
            self._kept = copy.deepcopy(state)
        return True

    def epoch(self, recipe: Recipe, phase: str, step: int) -> str:
        """Look at the score on the split "selection" if an epoch ends with this step of a loop.

        Returns:
            Why the loop should end, or an empty text.
        """
        if not recipe.eval_every or (step + 1) % recipe.eval_every:
            return ""
        self.look(self.run.epoch(phase, step + 1).score)
        return f"no better score in {self.waited} epochs" if self.enough(recipe) else ""

    def enough(self, recipe: Recipe) -> bool:
        """Tell whether the patience is at its end."""
        return bool(recipe.patience) and self.waited >= recipe.patience

    def restore(self) -> None:
        """Put the best weights back, if any were kept.

        A module of the same architecture must be attached.
        """
        if not self._kept:
            return
        self.run.objective.load_state_dict(self._kept["objective"])
        if self.run.module is not None:
            self.run.module.load_state_dict(self._kept["module"])

    def state_dict(self) -> dict[str, Any]:
        """Return the score, the waiting and the kept weights."""
        kept = {"score": self.score, "tag": self.tag, "waited": self.waited}
        return {**kept, "weights": self._kept}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore them."""
        self.score, self.tag, self.waited = state["score"], state["tag"], state["waited"]
        self._kept = state["weights"]


def fit(
    run: Run,
    phase: str,
    steps: int,
    recipe: Recipe,
    *,
    before: int = 0,
    total: int | None = None,
    counted: bool = False,
    state: Mapping[str, Stateful] | None = None,
    former: WeightOptimizer | None = None,
) -> WeightOptimizer:
    """Train the attached module and all other weights; end with the best by selection score.

    Args:
        run: The run, with a module attached.
        phase: Unique name of this training.
        steps: Number of steps.
        recipe: How.
        before: Steps that came before in the learning rate's shape.
        total: Steps that the learning rate's shape spans; `before + steps` if not given.
        counted: Whether the steps count against the search budget.
        state: Parts of the caller's that go into the checkpoints.
        former: The optimiser that moved these weights until now, if they were trained before.

    Returns:
        The optimiser, with which a later training can go on.
    """
    total = total or before + steps
    optimizer, best = WeightOptimizer(run, recipe, total, former), Best(run)
    parts: dict[str, Stateful] = {"optimizer": optimizer, "best": best, **(state or {})}
    loop = run.steps(phase, steps, parts, cost=int(counted))
    for step in loop:
        losses = optimizer.gradients(step, "train", phase)
        optimizer.step(before + step)
        run.emit(Step.of(phase, step, steps, losses, optimizer.rate))
        if step + 1 < steps and best.epoch(recipe, phase, step):
            loop.stop()
    if recipe.eval_every:
        if not run.once(f"{phase} ended early", lambda: best.enough(recipe)):
            best.look(run.epoch(phase, "end").score)
        best.restore()
    return optimizer
