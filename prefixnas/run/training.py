"""Training an attached module: one optimiser step, and a loop that keeps the best weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prefixnas.base.errors import UserError
from prefixnas.run.checkpoint import Stateful
from prefixnas.run.evaluation import Split
from prefixnas.run.events import Step
from prefixnas.run.loop import refuse_nan
from prefixnas.run.run import Run


@dataclass(frozen=True)
class Recipe:
    """How weights are trained, the same in every phase and for every baseline.

    Attributes:
        warmup: Steps in which the learning rate grows from 0.
        decay: Share of the total steps, at the end, in which it falls to 0.
        clip: Largest norm of the weights' gradient.
        eval_every: Steps of an epoch, which ends with a look at the selection split; training keeps
            the best weights seen; 0: no epochs, the last weights are kept.
        patience: Epochs without a better score before searching or training ends early; 0: never.
    """

    warmup: int = 10
    decay: float = 0.5
    clip: float = 1.0
    eval_every: int = 0
    patience: int = 0

    def rate(self, step: int, total: int) -> float:
        """Return the learning rate's factor at `step` of `total`: up, level, down to 0."""
        up = min(1.0, (step + 1) / max(1, self.warmup))
        tail = max(1.0, self.decay * total)
        return max(0.0, min(up, (total - step) / tail))


class WeightOptimizer:
    """AdamW on the objective's weights, one joint step at a time.

    Args:
        run: The run, with a module attached.
        recipe: Learning-rate shape and clipping.
        total: Steps of the whole run, which the learning rate's shape spans.
        former: The optimiser that moved these weights until now. Its moments are kept for every
            weight that goes on: AdamW without them takes its first steps at full length,
            whatever the gradient, and undoes part of what was learned.

    Attributes:
        norm: Norm of the gradient in the last step, before it was clipped; None before the first.
    """

    def __init__(
        self, run: Run, recipe: Recipe, total: int, former: WeightOptimizer | None = None
    ) -> None:
        self.run, self.recipe, self.total = run, recipe, total
        self.norm: float | None = None
        self.adamw = torch.optim.AdamW(run.objective.parameters())
        known = former.adamw.state if former is not None else {}
        for group in self.adamw.param_groups:
            kept = {weight: known[weight] for weight in group["params"] if weight in known}
            self.adamw.state.update(kept)
        self._rates = [group["lr"] for group in self.adamw.param_groups]

    @property
    def rate(self) -> float:
        """The first group's current learning rate."""
        return float(self.adamw.param_groups[0]["lr"])

    def rates(self, step: int) -> list[float]:
        """Return each group's learning rate at `step`, counted from the start of the run."""
        factor = self.recipe.rate(step, self.total)
        return [rate * factor for rate in self._rates]

    def gradients(
        self, step: int, split: Split, phase: str, extra: Tensor | None = None
    ) -> dict[str, float]:
        """Clear, then compute the gradients of the joint loss plus `extra`; return the losses.

        Raises:
            UserError: A loss is NaN or infinite.
        """
        self.adamw.zero_grad(set_to_none=True)
        losses = self.run.objective.backward(split)
        refuse_nan(losses, phase, step, self.run.folder)
        if extra is not None and extra.requires_grad:
            extra.backward()  # type: ignore[no-untyped-call]
        return losses

    def step(self, step: int) -> None:
        """Move the weights; `step` counts from the start of the run.

        Raises:
            UserError: The gradient holds NaN or infinity, which would spoil all weights.
        """
        parameters: Iterable[Tensor] = (
            parameter for group in self.adamw.param_groups for parameter in group["params"]
        )
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.recipe.clip)
        if not torch.isfinite(norm):
            raise UserError(
                f"the gradient became {norm.item()} at step {step}; the last good checkpoint stays "
                f"in {self.run.folder / 'checkpoint'}; a lower learning rate may help"
            )
        self.norm = norm.item()
        for group, rate in zip(self.adamw.param_groups, self.rates(step), strict=True):
            group["lr"] = rate
        self.adamw.step()
        self.run.objective.stepped(step)

    def state_dict(self) -> dict[str, Any]:
        """Return the optimiser's state."""
        return self.adamw.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore it."""
        self.adamw.load_state_dict(dict(state))


class Plateau:
    """Epochs in a row without a better score, and when they are enough.

    Args:
        run: The run.
        recipe: `eval_every` is an epoch's steps, `patience` how many epochs are enough.
        phase: The loop.

    Attributes:
        score: The best score; None before the first epoch.
        waited: Epochs since then.
    """

    def __init__(self, run: Run, recipe: Recipe, phase: str) -> None:
        self.run, self.recipe, self.phase = run, recipe, phase
        self.score: float | None = None
        self.waited = 0

    def look(self, step: int) -> str:
        """Score if the epoch ends with this step; return why the loop should end, or nothing."""
        every, patience = self.recipe.eval_every, self.recipe.patience
        if not every or (step + 1) % every:
            return ""
        score = _rankable(self.run.epoch(self.phase, step + 1).score)
        better = self.score is None or score > self.score
        self.score, self.waited = (score, 0) if better else (self.score, self.waited + 1)
        enough = bool(patience) and self.waited >= patience
        return f"no better score in {self.waited} epochs" if enough else ""

    def state_dict(self) -> dict[str, Any]:
        """Return the best score and the waiting."""
        return {"score": self.score, "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore them."""
        self.score, self.waited = state["score"], state["waited"]


class Best:
    """The best trained state so far by the selection score, and how long ago that was.

    Attributes:
        score: The best score; None before the first look.
        tag: What the caller wanted to remember with it (an architecture's choices, say).
        waited: Looks since the score rose last.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.score: float | None = None
        self.tag: Any = None
        self.waited = 0
        self._kept: dict[str, Any] = {}

    def look(self, score: float, tag: Any = None) -> bool:
        """Keep the current weights if `score` is at least as good as the best; NaN is worst.

        Returns:
            Whether they are kept.
        """
        score = _rankable(score)
        better = self.score is None or score > self.score
        self.waited = 0 if better else self.waited + 1
        if not better and score != self.score:
            return False
        self.score, self.tag = score, tag
        module = self.run.module
        self._kept = copy.deepcopy(
            {
                "objective": self.run.objective.state_dict(),
                "module": module.state_dict() if module is not None else {},
            }
        )
        return True

    def restore(self) -> None:
        """Put the best weights back; a module of the same architecture must be attached."""
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


def _rankable(score: float) -> float:
    return float("-inf") if math.isnan(score) else score


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
    loop = run.steps(phase, steps, parts) if counted else run.free_steps(phase, steps, parts)
    for step in loop:
        losses = optimizer.gradients(step, "train", phase)
        optimizer.step(before + step)
        run.emit(Step.of(phase, step, steps, losses, optimizer.rate))
        looks = recipe.eval_every and (step + 1) % recipe.eval_every == 0
        if looks and step + 1 < steps:
            best.look(run.epoch(phase, step + 1).score)
            if recipe.patience and best.waited >= recipe.patience:
                loop.stop()
    if recipe.eval_every:
        if not (recipe.patience and best.waited >= recipe.patience):
            best.look(run.epoch(phase, "end").score)
        best.restore()
    return optimizer
