"""What a way to fine-tune a model is: its options, and what it puts into the model.

A method is a dataclass whose fields are keys of the configuration. `attach` puts it into a model
and returns an `Attached`, which owns all that trains. The task of a batch is no argument of any
call: it is set around the passes, by `LanguageModel.on`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from prefixnas.base.errors import UserError
from prefixnas.base.options import Options
from prefixnas.base.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn

    from peml.model.model import LanguageModel

Merges = Literal["always", "per task", "no"]

RATE = 2e-3
"""Learning rate of a method that names no other: LoRA's."""


@dataclass(frozen=True)
class Setting:
    """What a method is attached for.

    Attributes:
        tasks: Names of the tasks, in their order.
        total_steps: Optimiser steps to come, for schedules; None: not known.
        seed: Seed of the first weights.
        trains: Whether it is attached to be trained. False: what was trained is read into it and
            used, so that what training alone needs (steps, precision) is not asked for.
    """

    tasks: tuple[str, ...] = ()
    total_steps: int | None = None
    seed: int = 0
    trains: bool = True


@dataclass(frozen=True)
class Group:
    """Weights that learn alike.

    Attributes:
        parameters: The weights.
        learning_rate: None: the key `learning_rate`.
        weight_decay: None: the key `weight_decay`.
    """

    parameters: Sequence[nn.Parameter]
    learning_rate: float | None = None
    weight_decay: float | None = None


class Attached(ABC):
    """A method inside a model, and everything of it that trains.

    The base model's own weights do not change, with the exception of `merge` and of methods that
    say so; after `detach` the model is what it was.

    Attributes:
        method: What was attached.
        tasks: Names of the tasks that it was attached for.
        input_rows: Positions of the model's window that are not for text.
        rewrites_weights: Whether `stepped` changes weights.
        splits_batches: Whether the gradients of parts of a batch add up to those of the batch:
            several processes may share it.
    """

    method: Method
    tasks: tuple[str, ...] = ()
    input_rows: int = 0
    rewrites_weights: bool = False
    splits_batches: bool = True

    @property
    def goes_on(self) -> bool:
        """Whether a decoder may read what prompts have in common once, and go on from its cache.

        A change of weights is the same for every token; what does not merge may look at the whole
        input, or at places in it.
        """
        return self.method.merges != "no"

    @abstractmethod
    def groups(self) -> list[Group]:
        """Return everything that trains, in a fixed order."""

    def parameters(self) -> list[nn.Parameter]:
        """Return everything that trains, in a fixed order, without its groups."""
        return [parameter for group in self.groups() for parameter in group.parameters]

    @abstractmethod
    def reset(self, seed: int) -> None:
        """Go back to a fresh start, the same for the same seed; parameter objects stay."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return tensors and JSON values to go on from, bit for bit."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> Any:
        """Go on from a `state_dict`."""

    def on(self, task: str) -> AbstractContextManager[Any]:
        """Return a context in which passes are of this task.

        Raises:
            UserError: The method was not trained for it.
        """
        return nullcontext()

    def batch_loss(self) -> Tensor | None:
        """Return a term of the forward passes since the last call, and forget it; None: none.

        It joins the batch's loss before the backward pass.
        """
        return None

    def step_loss(self) -> Tensor | None:
        """Return a term of the weights alone; None: none. It counts once an optimiser step."""
        return None

    def observed(self, losses: Mapping[str, float]) -> None:  # noqa: B027
        """Take note of the losses of a step by task, before the optimiser's step.

        Args:
            losses: Those of the whole batches, the same on all processes.
        """

    def stepped(self, step: int) -> None:  # noqa: B027
        """Do what is due after ``optimizer.step()`` and before ``zero_grad()``.

        Args:
            step: How many optimiser steps were done before this one, from 0.
        """

    def resized(self, weights: int) -> Method | None:
        """Return this method in the size at which it trains as near to `weights` numbers as it can.

        None: it can't be resized, or no size is nearer than the one that it has.
        """
        return None

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what was trained into an adapter folder."""

    @abstractmethod
    def load(self, folder: Path) -> None:
        """Read what `save` wrote.

        Raises:
            UserError: It is missing, damaged, or of another model.
        """

    def merge(self, task: str | None = None) -> None:
        """Put what was trained into the model's own weights, and take the rest out.

        Args:
            task: For which task, where the method merges per task.

        Raises:
            UserError: The method does not merge, or needs a task.
        """
        raise UserError(
            f"method {self.method.label!r} does not merge: what it adds is no change of weights"
        )

    @abstractmethod
    def detach(self) -> None:
        """Make the model what it was before."""

    def weights_in_use(self) -> int:
        """Return how many of the trained numbers take part in a pass of one task."""
        return sum(parameter.numel() for parameter in self.parameters())


class Method(Options, ABC):
    """A way to fine-tune a model. Subclasses are dataclasses, whose fields are their options.

    Attributes:
        label: What tables call it.
        needs_task: Whether a pass must be told its task.
        merges: Whether what was trained can be put into the weights of the base model: ``always``,
            ``per task`` (one model for each), or ``no``.
        starts_at_base: Whether the model computes at the start what the base does.
        changes_keys: Whether attention gets other keys and values than the text's, so that a
            searched prefix can't stand beside it.
        rate: Learning rate where the user gives none.
        reads_base: Whether it computes with the base model's own weights, which must be whole then.
    """

    label: ClassVar[str]
    needs_task: ClassVar[bool] = False
    merges: ClassVar[Merges] = "always"
    starts_at_base: ClassVar[bool] = True
    changes_keys: ClassVar[bool] = False
    rate: ClassVar[float] = RATE
    reads_base: ClassVar[bool] = False

    @abstractmethod
    def attach(self, lm: LanguageModel, setting: Setting) -> Attached:
        """Put the method into a model, with fresh weights.

        Raises:
            UserError: The model or an option is not usable.
        """

    @property
    def input_rows(self) -> int:
        """Positions of the model's window that the method takes, and that are not for text."""
        return 0

    def size(self, lm: LanguageModel, tasks: int) -> int:
        """Return how many numbers it would train in a model at least, without attaching it."""
        return 0

    @property
    def title(self) -> str:
        """What tables call it as it is set."""
        return self.label


METHODS: Registry[type[Method]] = Registry("method", "peml.methods")
register_method = METHODS.register


def attach_method(method: Method, lm: LanguageModel, setting: Setting) -> Attached:
    """Put a method into a model; from then on ``lm.on(task)`` reaches it.

    Raises:
        UserError: The model or an option is not usable, or there are no tasks for a method that
            needs them.
    """
    if method.needs_task and not setting.tasks:
        raise UserError(f"method {method.label!r}: name at least one task")
    if method.reads_base and lm.quantize == "int8":
        raise UserError(
            f"method {method.label!r} computes with the base model's own weights, which int8 does "
            "not give back on every device; take another method, or leave the key 'quantize' out"
        )
    attached = method.attach(lm, setting)
    lm.attached.append(attached)
    return attached
