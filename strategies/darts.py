"""DARTS: differentiable search by gradient on relaxed choices.

`--level joint` is Algorithm 1 of PEML: weights and alphas move in the same step, by the gradient
of the same joint loss. `--level bilevel` is first-order DARTS (Liu, Simonyan, Yang, ICLR 2019):
alphas move on batches of the selection split, weights on training batches, in turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from prefixnas.architecture import Architecture
from prefixnas.config import option
from prefixnas.diagnostics import emit_alphas, emit_step, warn_of_dropout
from prefixnas.errors import UserError
from prefixnas.relaxation import RELAXATIONS
from prefixnas.run import Budget, Run, Stateful
from prefixnas.space import SearchSpace
from prefixnas.strategy import Found, Strategy
from prefixnas.supernet import Supernet
from prefixnas.training import Recipe, WeightOptimizer


@dataclass(frozen=True)
class Darts(Strategy):
    """Differentiable search; joint (Algorithm 1 of the paper) or bilevel, first order."""

    level: Literal["joint", "bilevel"] = option("joint", "update alphas with the weights, or apart")
    relaxation: str = option("softmax", "from alpha to mixture weights")
    alpha_learning_rate: float = option(0.03, "learning rate of the alphas (Adam)", above=0)
    alpha_warmup: float = option(
        0.2, "share of the search in which only weights move", at_least=0, at_most=1
    )
    entropy_weight: float = option(
        0.05, "lambda of eq. 4; grows linearly to this value", at_least=0
    )
    prune_below: float = option(
        0.05, "drop candidates whose probability falls below this", at_least=0, below=1
    )
    log_every: int = option(5, "steps between two records of the alphas", at_least=1)

    @property
    def _passes(self) -> int:
        return 2 if self.level == "bilevel" else 1

    def check(self, space: SearchSpace, settings: Mapping[str, str], budget: Budget) -> None:
        """Refuse an unknown relaxation, a space without alphas, a budget without a step."""
        RELAXATIONS.get(self.relaxation, "key 'relaxation'")
        settled = space.settle(settings)
        if all(d.decided_by != "alpha" or d.name in settled for d in space.decisions):
            raise UserError(f"space {space.name!r} leaves no choice to alpha: nothing to search")
        if budget.search < self._passes:
            raise UserError(
                f"{budget.search} search steps are too few; raise steps or search_fraction"
            )

    def search(self, run: Run, recipe: Recipe) -> Found:
        """Move weights and alphas, prune on the way, return the argmax."""
        passes = self._passes
        steps = run.budget.search // passes
        net = Supernet(
            run.space, run.objective.width, RELAXATIONS.get(self.relaxation)(), run.settings
        )
        run.once("warned of dropout", lambda: warn_of_dropout(run))
        run.reset(net)
        weights = WeightOptimizer(run, recipe, run.budget.total)
        alphas = torch.optim.Adam(net.alphas.parameters(), self.alpha_learning_rate, (0.5, 0.999))
        warmup = int(self.alpha_warmup * steps)
        state: dict[str, Stateful] = {"weights": weights, "alphas": alphas}
        for step in run.steps("search", steps, state, cost=passes):
            net.progress = step / steps
            alphas.zero_grad(set_to_none=True)  # warm-up and weight steps leave gradients behind
            strength = self.entropy_weight * net.progress
            if self.level == "joint":
                regulariser = strength * net.entropy()
                losses = weights.gradients(step, "train", "search", regulariser)
                gradient = _move(alphas, net) if step >= warmup else None
                weights.step(step)
            else:
                gradient = None
                if step >= warmup:
                    weights.gradients(step, "selection", "search", strength * net.entropy())
                    gradient = _move(alphas, net)
                losses = weights.gradients(step, "train", "search")
                weights.step(step * passes)
            emit_step(run, "search", step, steps, losses, weights.rate, net)
            if step % self.log_every == 0 or step == steps - 1:
                emit_alphas(run, "search", step, net, gradient)
            if step >= warmup and (dropped := net.prune(self.prune_below)):
                run.emit("prune", step=step, dropped=dropped)
        mixture = run.evaluate("mixture", "validation")
        choices = run.once("architecture", lambda: net.architecture().choices)
        architecture = Architecture(choices, run.space.name)
        run.replace(net.cut(architecture))
        return Found(architecture, mixture, weights)


def _move(alphas: torch.optim.Optimizer, net: Supernet) -> Tensor:
    """Step the alphas by the gradients they hold, return the gradients' norm."""
    gradients = [alpha.grad for alpha in net.alphas if alpha.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients) if gradients else torch.zeros(())
    alphas.step()
    return norm
