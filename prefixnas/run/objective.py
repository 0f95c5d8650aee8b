"""What a search optimises: the protocol that a user's own problem implements.

An objective owns everything trainable except the searched module itself: data, other weights,
loss, metric. The module maps `[n, width]` to `[n, width_out]`; the objective decides what it is
fed with and what its output is for. `prefixnas.testing` holds a small complete example.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from prefixnas.base.errors import UserError
from prefixnas.base.registry import Registry
from prefixnas.run.evaluation import Evaluation, Split
from prefixnas.space.space import Decision, SearchSpace


class Objective(Protocol):
    """A training problem with a place for a searched module.

    Attributes:
        name: Name for reports.
        width: Width of the searched module's input.
        optional: Whether the problem can be trained without the module, as a baseline.
        without_label: What that baseline is called in tables ("LoRA alone").
    """

    name: str
    width: int
    optional: bool
    without_label: str

    def reset(self, module: nn.Module | None, seed: int) -> None:
        """Start anew: fresh weights of its own from `seed`, with `module` in its place.

        Args:
            module: The searched module, which may have an attribute `width_out`; None: without.
            seed: Seed of the fresh weights and of the order of the data.
        """
        ...

    def replace(self, module: nn.Module) -> None:
        """Put another module in the place and keep all other weights."""
        ...

    def parameters(self) -> list[dict[str, Any]]:
        """Return optimiser groups (`params`, `lr`, `weight_decay`) of all trainable weights.

        The module's weights are in them, its `alphas` are not.
        """
        ...

    def backward(self, split: Split = "train") -> dict[str, float]:
        """Draw the next batch of every task, add the gradients of eq. 4's first term.

        An objective that splits the batches over several processes (`prefixnas.run.ranks`) says so
        in an attribute `splits_batches = True`. Gradients, losses and scores must then be those of
        the whole batches on every rank, and so must the random state afterwards.

        Returns:
            The loss per task.
        """
        ...

    def stepped(self, step: int) -> None:
        """Do what is due after the optimiser's step and before the gradients are cleared.

        An objective that changes weights here says so in an attribute `rewrites_weights = True`:
        a strategy that looks ahead of the optimiser's step cannot foresee it.
        """
        ...

    def evaluate(self, split: Split) -> Evaluation:
        """Score the model as it is, in evaluation mode, without touching any random state."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return all state but the module's, as nested dicts of tensors and JSON values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> Any:
        """Restore what `state_dict` returned, in place: the batches that come next included."""
        ...

    def save(self, folder: Path) -> None:
        """Write the trained artefacts into the empty folder `folder`."""
        ...

    def warnings(self) -> Iterable[str]:
        """Return what the user should know about the run so far (truncated inputs, say).

        Asked before the first step and after the last; a text that was returned before is not
        shown again.
        """
        ...


class TakesKnobs(Protocol):
    """What an objective has besides if it carries out decisions itself (`SearchSpace.knobs`).

    It reads them off the module that `reset` and `replace` give it: `module.knobs()`, after the
    module's forward pass, holds per knob the weight of each option, with gradient to alpha.

    Attributes:
        sizes: Numbers that a space may name instead of giving them (`layers: attention_layers`).
    """

    sizes: Mapping[str, int]

    def check_knobs(self, knobs: Sequence[Decision]) -> None:
        """Refuse knobs, options or ways to decide that this objective does not know.

        Raises:
            UserError: Names the first knob that is not usable.
        """
        ...


class TakesSomeSpaces(Protocol):
    """What an objective has besides if it cannot take every space."""

    def check_space(self, space: SearchSpace) -> None:
        """Refuse a space.

        Raises:
            UserError: Names the space and what is taken.
        """
        ...


class HasProxy(Protocol):
    """What an objective has besides if there is a cheaper version of it to search on."""

    def check_proxy(self, settings: Mapping[str, str]) -> None:
        """Refuse settings that make no proxy.

        Args:
            settings: What makes it cheaper, as the user gave it: `{"layers": "2"}`.

        Raises:
            UserError: An unknown setting, with the nearest one, or a value out of range.
        """
        ...

    def proxy(self, settings: Mapping[str, str]) -> Objective:
        """Return the cheaper version: an objective of its own with the same width and knobs.

        Frozen weights may be shared; nothing that trains there is trained here.

        Args:
            settings: As `check_proxy` took them.
        """
        ...


def fit_space(space: SearchSpace, objective: Objective) -> SearchSpace:
    """Return the space as an objective takes it: with its sizes, and with knobs that it knows.

    Raises:
        UserError: The objective refuses the space, or does not carry out a knob of it.
    """
    sizes: Mapping[str, int] = getattr(objective, "sizes", {})
    space = space.with_sizes(sizes) if space.sizes else space
    if knobs := space.knob_decisions:
        check = getattr(objective, "check_knobs", None)
        if check is None:
            raise UserError(
                f"space {space.name!r}: the objective {objective.name!r} carries out no knobs, "
                f"so it cannot take {knobs[0].name!r}"
            )
        check(knobs)
    check_space = getattr(objective, "check_space", None)
    if check_space is not None:
        check_space(space)
    return space


class ObjectiveConfig(Protocol):
    """What the command line needs to offer an objective: a dataclass of its options.

    Its fields become keys and flags, so its module should import nothing heavy. It is found by
    name through the entry-point group `prefixnas.objectives` or `@register_objective`.

    A class attribute `references` may name hand-made modules, which `prefixnas compare` sets beside
    every search: by label, the keys of a run of the strategy `fixed`, "space" among them.
    """

    def build(self, total_steps: int, seed: int) -> Objective:
        """Load data and models.

        Args:
            total_steps: Optimiser steps of the run, for schedules.
            seed: The run's seed.
        """
        ...


OBJECTIVES: Registry[type[Any]] = Registry("objective", "prefixnas.objectives")
register_objective = OBJECTIVES.register
