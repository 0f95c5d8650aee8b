"""The options that low-rank methods share."""

from __future__ import annotations

from dataclasses import dataclass

from prefixnas.base.options import Options, option


@dataclass(frozen=True)
class Ranked(Options):
    """Rank and place of low-rank updates."""

    lora_rank: int = option(16, "rank r", at_least=1, at_most=10_000)
    lora_targets: list[str] | None = option(None, "modules; none: attention projections")


@dataclass(frozen=True)
class LowRank(Ranked):
    """Rank, scale, dropout and place of low-rank updates."""

    lora_alpha: int = option(32, "scale of the update, divided by r", at_least=1, at_most=10**6)
    lora_dropout: float = option(0.1, "dropout on the update's input", at_least=0, below=1)

    @property
    def scale(self) -> float:
        """Alpha over r."""
        return self.lora_alpha / self.lora_rank
