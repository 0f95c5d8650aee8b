"""Full fine-tuning: every weight of the model trains, and the checkpoint is the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from peml.methods.method import Attached, Method, Setting

if TYPE_CHECKING:
    from peml.model.model import LanguageModel


@dataclass(frozen=True)
class Full(Method):
    """Every weight of the base model trains; norms and biases do not decay."""

    label: ClassVar[str] = "full"
    rate: ClassVar[float] = 1e-4
    reads_base: ClassVar[bool] = True

    def attach(self, lm: LanguageModel, setting: Setting) -> Attached:
        """Give the model weights of its own, which train."""
        from peml.methods.whole import Whole

        return Whole(self, lm, setting)

    def size(self, lm: LanguageModel, tasks: int) -> int:
        """Return how many numbers the model has; weights that are used twice count once."""
        from peml.methods.whole import count_all

        return count_all(lm)
