"""LoRA and its kin as PEFT has them: low-rank updates that merge into the weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from peml.methods.lowrank import LowRank
from peml.methods.method import Attached, Method, Setting

if TYPE_CHECKING:
    from peml.model.model import LanguageModel


@dataclass(frozen=True)
class Lora(LowRank, Method):
    """Low-rank updates: y = W x + (alpha / r) B A drop(x)."""

    label: ClassVar[str] = "LoRA"
    kind: ClassVar[str] = "lora"

    def attach(self, lm: LanguageModel, setting: Setting) -> Attached:
        """Wrap the projections."""
        return self.of_rank(self.lora_rank, lm, setting)

    def of_rank(self, rank: int, lm: LanguageModel, setting: Setting) -> Attached:
        """Attach it with another rank, and the alpha that goes with that."""
        from peml.methods.lora_kinds import alpha_at
        from peml.methods.peft_lora import add_lora

        handle = add_lora(
            lm,
            self.kind,
            rank=rank,
            alpha=alpha_at(self.kind, self.lora_rank, self.lora_alpha, rank),
            dropout=self.lora_dropout,
            targets=self.lora_targets,
            total_steps=setting.total_steps if setting.trains else 1,
            seed=setting.seed,
        )
        handle.method, handle.of_rank = self, partial(Resized, self)
        return handle

    def size(self, lm: LanguageModel, tasks: int) -> int:
        """Return how many numbers its factors have at least."""
        from peml.methods.lora_kinds import size_of_lora

        return size_of_lora(lm, self.kind, self.lora_rank, self.lora_targets)


@dataclass(frozen=True)
class RsLora(Lora):
    """LoRA scaled by alpha over the root of r, so that a high rank is not held down."""

    label: ClassVar[str] = "rsLoRA"
    kind: ClassVar[str] = "rslora"


@dataclass(frozen=True)
class Dora(Lora):
    """LoRA on the direction of the weights; their magnitude is trained apart."""

    label: ClassVar[str] = "DoRA"
    kind: ClassVar[str] = "dora"
    reads_base: ClassVar[bool] = True


@dataclass(frozen=True)
class AdaLora(Lora):
    """LoRA that starts at 1.5 r and takes rank away where it matters least."""

    label: ClassVar[str] = "AdaLoRA"
    kind: ClassVar[str] = "adalora"


@dataclass(frozen=True)
class Resized(Method):
    """LoRA of another rank than it was asked for, and an alpha that goes with that.

    Attributes:
        of: What was asked for.
        rank: The rank in its place.
    """

    of: Lora
    rank: int
    label: ClassVar[str] = "LoRA of equal weights"

    @property
    def title(self) -> str:
        """Say kind and rank."""
        return f"{self.of.label} r={self.rank}"

    def attach(self, lm: LanguageModel, setting: Setting) -> Attached:
        """Wrap the projections."""
        return self.of.of_rank(self.rank, lm, setting)
