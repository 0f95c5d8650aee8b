"""What a search optimises: the base of a user's own problem.

An objective owns everything trainable except the searched module itself: data, other weights,
loss, metric. The module maps `[n, width]` to `[n, width_out]`; the objective decides what it is
fed with and what its output is for. `prefixnas.testing.ToyObjective` is a small complete example.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from prefixnas.base.errors import UserError
from prefixnas.base.options import Options
from prefixnas.base.registry import Registry
from prefixnas.run.evaluation import Evaluation, Split
from prefixnas.space.decisions import Decision
from prefixnas.space.space import SearchSpace

if TYPE_CHECKING:
    from torch import nn


Order = Literal["together", "own first", "module first"]
"""Whether the problem's own weights train with the module, before its search, or after it."""

Part = Literal["own", "module", "both"]
"""What trains: the problem's own weights, the module and what feeds it, or everything."""


class Objective(ABC):
    """A training problem with a place for a searched module.

    Attributes:
        name: Name for reports.
        width: Width of the searched module's input.
        optional: Whether the problem can be trained without the module, as a baseline.
        without_label: What that baseline is called in tables ("LoRA alone"); that of what `alone`
            returns says how it differs ("LoRA r=63").
        about: What a report says of the problem at its top, by label: the model, the method.
        data: Hashes of what is trained and scored on, by name: a run goes on with these alone.
        sizes: Numbers that a space may name instead of giving them (`layers: attention_layers`).
        tested: Whether there is a split `test`, on which every trained model is scored once.
        splits_batches: Whether `backward` and `evaluate` split batches over several processes
            (`prefixnas.run.ranks`). Gradients, losses and scores must then be those of the whole
            batches on every rank, and so must the random state afterwards.
        rewrites_weights: Whether `stepped` changes weights: a strategy that looks ahead of the
            optimiser's step cannot foresee it.
        order: What trains when. Where it is not ``together``, the driver calls `turn`.

    Example:
        >>> import torch
        >>> class Doubling(Objective):
        ...     name, width = "doubling", 4
        ...
        ...     def reset(self, module, seed):
        ...         self.module, self.drawn = module, 0
        ...     def replace(self, module):
        ...         self.module = module
        ...     def parameters(self):
        ...         return [{"params": list(self.module.parameters()), "lr": 0.01}]
        ...     def backward(self, split="train"):
        ...         loss, self.drawn = self._error(self.drawn), self.drawn + 1
        ...         loss.backward()
        ...         return {"double": loss.item()}
        ...     def evaluate(self, split):
        ...         score = -self._error(-1).item()
        ...         return Evaluation({"double": {"negative_mse": score}}, {"double": score})
        ...     def state_dict(self):
        ...         return {"drawn": self.drawn}
        ...     def load_state_dict(self, state):
        ...         self.drawn = state["drawn"]
        ...     def _error(self, batch):
        ...         x = torch.randn(8, 4, generator=torch.Generator().manual_seed(100 + batch))
        ...         return (self.module(x) - 2 * x).square().mean()
        >>> objective = Doubling()
        >>> objective.reset(torch.nn.Linear(4, 4), seed=0)
        >>> sorted(objective.backward())
        ['double']
    """

    name: str
    width: int
    optional: bool = False
    without_label: str = "without a module"
    about: Mapping[str, str] = {}
    data: Mapping[str, str] = {}
    sizes: Mapping[str, int] = {}
    tested: bool = False
    splits_batches: bool = False
    rewrites_weights: bool = False
    order: Order = "together"

    @abstractmethod
    def reset(self, module: nn.Module | None, seed: int) -> None:
        """Start anew: fresh weights of its own from `seed`, with `module` in its place.

        Args:
            module: The searched module, which may have an attribute `width_out`; None: without.
            seed: Seed of the fresh weights and of the order of the data.
        """

    @abstractmethod
    def replace(self, module: nn.Module) -> None:
        """Put another module in the place and keep all other weights."""

    @abstractmethod
    def parameters(self) -> list[dict[str, Any]]:
        """Return optimiser groups (`params`, `lr`, `weight_decay`) of all trainable weights.

        The module's weights are in them, its `alphas` are not.
        """

    @abstractmethod
    def backward(self, split: Split = "train") -> dict[str, float]:
        """Draw the next batch of every task, add the gradients of eq. 4's first term.

        Returns:
            The loss per task.
        """

    @abstractmethod
    def evaluate(self, split: Split) -> Evaluation:
        """Score the model as it is, in evaluation mode, without touching any random state."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return all state but the module's, as nested dicts of tensors and JSON values."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> Any:
        """Restore what `state_dict` returned, in place: the batches that come next included."""

    def stepped(self, step: int) -> None:  # noqa: B027
        """Do what is due after the optimiser's step and before the gradients are cleared."""

    def turn(self, part: Part) -> None:  # noqa: B027
        """Let a part train from now on, and hold the other one still.

        `parameters` are then those of the part. Own weights that are held keep what they have
        learned, at a `reset` too; a module that is held is used as it is evaluated.

        Args:
            part: The part; where the order is ``together``, it is ``both`` throughout.
        """

    def undivided(self) -> Objective:
        """Return the problem with everything training together, for baselines; often itself."""
        return self

    def save(self, folder: Path) -> None:  # noqa: B027
        """Write the trained artefacts into the empty folder `folder`."""

    def finished(self, folder: Path) -> None:  # noqa: B027
        """Say beside what `save` wrote how it came out.

        Args:
            folder: The run's folder, which holds its result; its `adapter` is that of `save`.
        """

    def count_weights(self) -> int:
        """Return how many numbers the problem has: those that are trained, and frozen ones."""
        return sum(weight.numel() for group in self.parameters() for weight in group["params"])

    def alone(self, weights: int) -> Objective | None:
        """Return this problem for training without the module, with as many trained weights.

        It is an objective of its own, with a `without_label` of its own, the same tasks and the
        same data; frozen weights may be shared. After `reset(None, seed)` its `parameters` hold as
        near to `weights` numbers as it can be made to.

        Args:
            weights: How many numbers the problem trained with the module.

        Returns:
            None: The problem cannot be resized, or no size is nearer than the one that it has.
        """
        return None

    def warnings(self) -> Iterable[str]:
        """Return what the user should know about the run so far (truncated inputs, say).

        Asked before the first step and after the last; a text that was returned before is not
        shown again.
        """
        return ()

    def check_space(self, space: SearchSpace) -> None:  # noqa: B027
        """Refuse a space.

        Raises:
            UserError: Names the space and what is taken.
        """

    def check_knobs(self, knobs: Sequence[Decision]) -> None:
        """Refuse knobs, options or ways to decide that this objective does not know.

        Knobs are decisions that the objective carries out itself (`SearchSpace.knobs`). It reads
        them off the module that `reset` and `replace` give it: `module.knobs()`, after the module's
        forward pass, holds per knob the weight of each option, with gradient to alpha.

        Args:
            knobs: At least one.

        Raises:
            UserError: Names the first knob that is not usable.
        """
        raise UserError(
            f"the objective {self.name!r} carries out no knobs, so it cannot take {knobs[0].name!r}"
        )

    def check_proxy(self, settings: Mapping[str, str]) -> None:
        """Refuse settings that make no cheaper version of this problem to search on.

        Args:
            settings: What makes it cheaper, as the user gave it: `{"layers": "2"}`.

        Raises:
            UserError: An unknown setting, with the nearest one, or a value out of range.
        """
        raise UserError(
            f"key 'proxy': the objective {self.name!r} has no proxy; leave it out, and the proxy "
            "is fewer steps on the whole problem"
        )

    def proxy(self, settings: Mapping[str, str]) -> Objective:
        """Return the cheaper version: an objective of its own with the same width and knobs.

        Frozen weights may be shared; nothing that trains there is trained here.

        Args:
            settings: As `check_proxy` takes them.
        """
        self.check_proxy(settings)
        raise TypeError(f"{type(self).__name__} takes settings of a proxy and makes none")


def fit_space(space: SearchSpace, objective: Objective) -> SearchSpace:
    """Return the space as an objective takes it: with its sizes, and with knobs that it knows.

    Raises:
        UserError: The objective refuses the space, or does not carry out a knob of it.
    """
    space = space.with_sizes(objective.sizes) if space.sizes else space
    if knobs := space.knob_decisions:
        objective.check_knobs(knobs)
    objective.check_space(space)
    return space


class ObjectiveConfig(Options, ABC):
    """What the command line needs to offer an objective: a dataclass of its options.

    Its fields become keys and flags, so its module should import nothing heavy. It is found by
    name through the entry-point group `prefixnas.objectives` or `@register_objective`.

    Attributes:
        references: Hand-made modules, which `prefixnas compare` sets beside every search: by
            label, the keys of a run of the strategy `fixed`, "space" among them.
        alone: What the key `baseline` calls the problem without the searched module.
        parts: Keys whose values name a dataclass of further options, by registry: `with_parts`
            says what the options are then.
    """

    references: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    alone: ClassVar[str] = "alone"
    parts: ClassVar[Mapping[str, Registry[Any]]] = {}

    @classmethod
    def with_parts(cls, names: Mapping[str, str]) -> type[ObjectiveConfig]:
        """Return the dataclass of all options that the named parts have together.

        Args:
            names: A name for each key of `parts`.

        Raises:
            UserError: An unknown name.
        """
        return cls

    def preview(self) -> Iterable[str]:
        """Return lines that say what would be trained on, for `--dry-run`.

        Raises:
            UserError: The data is not usable.
        """
        return ()

    def epoch(self, seed: int) -> float:
        """Return how many steps an epoch has: until all that is trained on came up.

        Args:
            seed: The run's seed.

        Raises:
            UserError: The objective knows no epochs, or its data is not usable.
        """
        raise UserError("key 'epochs': the objective has none; say how many 'steps'")

    def steps_apart(self, steps: int) -> int:
        """Return how many of so many joint steps train own weights apart (`Objective.order`)."""
        return 0

    @abstractmethod
    def build(self, total_steps: int, seed: int) -> Objective:
        """Load data and models.

        Args:
            total_steps: Optimiser steps of the run, for schedules.
            seed: The run's seed.
        """


OBJECTIVES: Registry[type[ObjectiveConfig]] = Registry("objective", "prefixnas.objectives")
register_objective = OBJECTIVES.register
"""Offer an objective's options under a name: `@register_objective("digits")`, for `--objective`."""
