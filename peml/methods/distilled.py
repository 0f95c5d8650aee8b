"""Rows of the input that are held to rows of single tasks: distillation, in one run.

In the first steps each task trains rows of its own, the teachers. In the rest they are still, and
the rows that are kept learn from the text and from what the model makes of it with the teacher's
rows in their place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peml.methods.masks import answer_mask
from peml.methods.method import Setting
from peml.methods.rows import InputRows, RowsMethod, RowsPart
from peml.model.answering import answer_positions
from peml.model.probing import is_probing
from prefixnas.base.errors import UserError
from prefixnas.network.modes import evaluation_mode

if TYPE_CHECKING:
    from peml.model.model import LanguageModel


class TaughtPart(RowsPart):
    """What makes the rows of a task, beside those of its teacher.

    Attributes:
        teachers: The teachers' rows by task.
    """

    teachers: nn.ParameterList


@dataclass(frozen=True)
class Outputs:
    """What a model makes of a batch.

    Attributes:
        hidden: What its output layer reads, `[b, t, width]`.
        logits: `[b, t, vocabulary]`; None for an encoder, whose heads stand outside.
        mask: 1 for the positions that are compared `[b, t]`.
    """

    hidden: Tensor
    logits: Tensor | None
    mask: Tensor


class Distilled(InputRows):
    """Rows with teachers in a model.

    Args:
        method: The method; its part is a `TaughtPart`.
        lm: The model.
        setting: Tasks, steps and seed.
        share: Of the steps that train the teachers.
        weight: What the distance from the teacher's outputs counts for in the loss.

    Raises:
        UserError: It is to train, and the number of steps is not known.
    """

    part: TaughtPart
    splits_batches = False  # a mean over a batch, whose parts are not weighed

    def __init__(
        self, method: RowsMethod, lm: LanguageModel, setting: Setting, share: float, weight: float
    ) -> None:
        if setting.trains and not setting.total_steps:
            raise UserError(f"method {method.label!r}: distillation needs the number of steps")
        self._lessons = round(share * (setting.total_steps or 0))
        self._weight, self._repeating = weight, False
        super().__init__(method, lm, setting)
        self._call: tuple[Any, dict[str, Any]] | None = None
        self._made: Outputs | None = None
        model: Any = lm.model
        self._head: nn.Module | None = model.get_output_embeddings()
        hooks = [
            model.register_forward_pre_hook(self._note, with_kwargs=True, prepend=True),
            (model if self._head is None else self._head).register_forward_hook(self._keep),
        ]
        self.undo_by(hook.remove for hook in hooks)

    def reset(self, seed: int) -> None:
        """Begin with the teachers."""
        super().reset(seed)
        self._step = 0

    def stepped(self, step: int) -> None:
        """Count the steps: behind the last lesson the teachers are still."""
        self._step = step + 1

    def rows(self) -> Tensor:
        """Return the teacher's rows in lessons, those that are kept in every evaluation."""
        own: Tensor = self.part.teachers[self.task]
        # A method that rests gives no lessons.
        lesson = self._step < self._lessons and self.lm.model.training and own.requires_grad
        return own if lesson or self._repeating else super().rows()

    def batch_loss(self) -> Tensor | None:
        """Return how far the last pass is from the teacher's, once there are no more lessons."""
        call, made = self._forget()
        if call is None or self._step < self._lessons:
            return None
        with self._taught(), evaluation_mode(self.lm.model):
            self.lm.model(*call[0], **call[1])
        _, taught = self._forget()
        assert made is not None and taught is not None
        return self._weight * distance(made, taught)

    def kept(self) -> dict[str, nn.Parameter]:
        """Return all but the teachers."""
        return {n: weight for n, weight in self.named().items() if not n.startswith("teachers.")}

    def weights_in_use(self) -> int:
        """Count what is of one task once, and no teacher."""
        return super().weights_in_use() - int(self.part.teachers[0].numel())

    def state_dict(self) -> dict[str, Any]:
        """Return the weights, and how many steps were done."""
        return {**super().state_dict(), "step": self._step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        weights = dict(state)
        self._step = int(weights.pop("step"))
        super().load_state_dict(weights)

    def load(self, folder: Path) -> None:
        """Read what was learned; the teachers are not needed any more."""
        super().load(folder)
        self._step = self._lessons

    @contextmanager
    def _taught(self) -> Iterator[None]:
        self._repeating = True
        try:
            yield
        finally:
            self._repeating = False

    def _forget(self) -> tuple[tuple[Any, dict[str, Any]] | None, Outputs | None]:
        found = self._call, self._made
        self._call = self._made = None
        return found

    def _note(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        """Keep the arguments of a training pass, to repeat it with the teacher's rows."""
        learning = module.training and torch.is_grad_enabled() and not is_probing()
        self._call = (args, dict(kwargs)) if learning or self._repeating else None

    def _keep(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self._call is not None:
            hidden = output.last_hidden_state if self._head is None else args[0]
            logits = None if self._head is None else output
            self._made = Outputs(hidden, logits, self._mask(self._call[1]).to(hidden))

    def _mask(self, given: Mapping[str, Any]) -> Tensor:
        """Return 1 for the positions of a pass that are compared."""
        if self.lm.family != "encoder-decoder":
            mask: Tensor | None = answer_positions()
            mask = given.get("attention_mask") if mask is None else mask
            return torch.ones_like(given["input_ids"]) if mask is None else mask
        real = answer_mask(self.lm, given)
        assert real is not None
        return real


def distance(made: Outputs, taught: Outputs) -> Tensor:
    """Return the mean over rows of KL divergence and squared difference of the hidden states.

    Args:
        made: Of the student, with gradient. Of a decoder, the positions that are computed are the
            last ones of the mask.
        taught: Of the teacher.
    """
    apart = (made.hidden - taught.hidden).square().mean(-1)
    if made.logits is not None and taught.logits is not None:
        logs = F.log_softmax(made.logits.float(), -1), F.log_softmax(taught.logits.float(), -1)
        apart = apart + F.kl_div(*logs, reduction="none", log_target=True).sum(-1)
    length = min(apart.shape[1], made.mask.shape[1])  # rows in front of the text are no text
    apart, mask = apart[:, -length:], made.mask[:, -length:]
    return ((apart * mask).sum(1) / mask.sum(1).clamp(min=1)).mean()
