"""On which losses alphas and weights move: at once, in turn, or alphas with a look ahead."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from prefixnas.base.errors import UserError
from prefixnas.base.registry import Registry
from prefixnas.network.supernet import Supernet
from prefixnas.oneshot.alphas import AlphaOptimizer
from prefixnas.oneshot.look_ahead import look_ahead
from prefixnas.oneshot.rewind import Bookmark, gradient_of, put
from prefixnas.run.evaluation import Split
from prefixnas.run.objective import Objective
from prefixnas.run.recipe import Recipe
from prefixnas.run.run import Run
from prefixnas.run.training import WeightOptimizer

Losses = dict[str, float]

PHASE = "search"


class Level(ABC):
    """A step of a differentiable search.

    Args:
        run: The run, with the supernet attached.
        net: The supernet.
        weights: The optimiser of the weights.
        alphas: The optimiser of the alphas, whose `step` takes the data's gradient alone.

    Attributes:
        passes: Batches that `step` passes, and so the search steps that it counts for.
        split: The split whose loss moves the alphas.
    """

    passes: ClassVar[int]
    split: ClassVar[Split] = "selection"

    def __init__(
        self, run: Run, net: Supernet, weights: WeightOptimizer, alphas: AlphaOptimizer
    ) -> None:
        self.run, self.net, self.weights, self.alphas = run, net, weights, alphas

    @classmethod
    def check(cls, objective: Objective) -> None:
        """Refuse an objective that this level cannot search on."""
        return

    @classmethod
    def check_recipe(cls, recipe: Recipe) -> None:
        """Refuse an optimiser of the weights that this level cannot search with."""
        return

    def move_weights(self, step: int) -> Losses:
        """Move the weights by one training batch; return the losses."""
        losses = self.weights.gradients(step, "train", PHASE)
        self.weights.step(self.run.spent)
        return losses

    @abstractmethod
    def step(self, step: int, entropy_weight: float) -> tuple[Losses, float]:
        """Move weights and alphas.

        Args:
            step: For messages.
            entropy_weight: Weight of the alphas' entropy (lambda of eq. 4), in the scale of
                `alphas.entropy`.

        Returns:
            The losses of the training batch, and the norm of the gradient that moved the alphas.
        """


LEVELS: Registry[type[Level]] = Registry("level", "prefixnas.levels")
"""Levels by the name that `--level` takes."""
register_level = LEVELS.register
"""Offer a level under a name: `@register_level("joint")`."""


@register_level("joint")
class Joint(Level):
    """Both at once, by the gradient of one training loss (Algorithm 1 of the PEML paper)."""

    passes: ClassVar[int] = 1
    split: ClassVar[Split] = "train"

    def step(self, step: int, entropy_weight: float) -> tuple[Losses, float]:
        """Pass one training batch."""
        self.alphas.zero_grad()
        losses = self.weights.gradients(step, "train", PHASE)
        norm = self.alphas.step(entropy_weight)
        self.weights.step(self.run.spent)
        return losses, norm


@register_level("bilevel")
class Bilevel(Level):
    """In turn: alphas by selection batches, weights by training batches (first-order DARTS)."""

    passes: ClassVar[int] = 2

    def step(self, step: int, entropy_weight: float) -> tuple[Losses, float]:
        """Pass a selection batch, then a training batch."""
        self.alphas.zero_grad()
        self.weights.gradients(step, "selection", PHASE)
        norm = self.alphas.step(entropy_weight)
        return self.move_weights(step), norm


@register_level("second-order")
class SecondOrder(Level):
    """In turn, alphas by what the selection loss will be after the weights' next step.

    Second-order DARTS (Liu et al. 2019, eq. 7), with the step of AdamW as it stands in the place
    of plain SGD: `L_sel(w', alpha)` with `w' = AdamW(w, gradient of L_train(w, alpha))`. The
    second term of its gradient is a product with the mixed Hessian of the training loss, taken by
    central differences on the same batch with the same random draws.
    """

    passes: ClassVar[int] = 5

    @classmethod
    def check(cls, objective: Objective) -> None:
        """Refuse weights that change where the optimiser's step cannot tell."""
        if objective.rewrites_weights:
            raise UserError(
                f"level 'second-order' cannot look ahead on objective {objective.name!r}: it "
                "changes weights behind the optimiser's step (AdaLoRA's ranks); take 'bilevel'"
            )

    @classmethod
    def check_recipe(cls, recipe: Recipe) -> None:
        """Refuse an optimiser whose step `look_ahead` does not know."""
        asked = [recipe.optimizer, *(o for o in recipe.optimizer_options if "amsgrad" in o)]
        if asked != ["adamw"]:
            raise UserError(
                f"key 'optimizer': level 'second-order' looks ahead by AdamW's step, not by that "
                f"of {' with '.join(asked)}; take 'adamw', or level 'bilevel'"
            )

    def step(self, step: int, entropy_weight: float) -> tuple[Losses, float]:
        """Pass a selection batch and four times one training batch."""
        before = Bookmark(self.run.objective)
        self.weights.gradients(step, "train", PHASE)
        look = look_ahead(self.weights, self.run.spent)
        start = [weight.detach().clone() for weight in look.weights]

        put(look.weights, look.ahead)
        self.alphas.zero_grad()
        self.weights.gradients(step, "selection", PHASE)
        outer = [gradient_of(weight) for weight in look.weights]
        direct = [gradient_of(alpha) for alpha in self.net.alphas]
        after = Bookmark(self.run.objective)

        through = self._through(step, before, look.weights, start, look.pull_back(outer))
        for alpha, first, second in zip(self.net.alphas, direct, through, strict=True):
            alpha.grad = first + second
        norm = self.alphas.step(entropy_weight)
        before.back()
        put(look.weights, start)
        losses = self.weights.gradients(step, "train", PHASE)
        after.back()
        put(look.weights, start)  # going back restored the objective's own weights of that time
        self.weights.step(self.run.spent)
        return losses, norm

    def _through(
        self,
        step: int,
        before: Bookmark,
        weights: Sequence[Tensor],
        start: Sequence[Tensor],
        direction: Sequence[Tensor],
    ) -> list[Tensor]:
        """Return how the alphas' gradient of the training loss grows along a direction of weights.

        Args:
            step: For messages.
            before: The training batch.
            weights: The weights, which are left moved.
            start: Their values.
            direction: Where to, a tensor per weight.
        """
        length = torch.nn.utils.get_total_norm(direction)
        found = [torch.zeros_like(alpha) for alpha in self.net.alphas]
        if not length > 0:
            return found
        reach = float(torch.finfo(length.dtype).eps ** (1 / 3) / length)
        for sign in (1, -1):
            before.back()
            moved = zip(start, direction, strict=True)
            put(weights, [weight + sign * reach * way for weight, way in moved])
            self.alphas.zero_grad()
            self.weights.gradients(step, "train", PHASE)
            for total, alpha in zip(found, self.net.alphas, strict=True):
                total += sign * gradient_of(alpha) / (2 * reach)
        return found
