"""PEFT's configurations of LoRA, by kind: rank, scale, size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import peft

from peml.methods.targets import attention_projections, linear_modules, matches, places_of
from peml.model.model import Family, LanguageModel
from prefixnas.base.errors import UserError

TASK_TYPES: Mapping[Family, peft.TaskType] = {
    "decoder": peft.TaskType.CAUSAL_LM,
    "encoder-decoder": peft.TaskType.SEQ_2_SEQ_LM,
    "encoder": peft.TaskType.FEATURE_EXTRACTION,
}
"""What PEFT calls a model of a family: its `AutoPeftModelFor...` classes go by it."""

_Config = peft.LoraConfig | peft.AdaLoraConfig
_Builder = Callable[[int, Any, float, int | None], _Config]  # alpha: PEFT says int


def _adalora(rank: int, alpha: Any, dropout: float, total_steps: int | None) -> _Config:
    if not total_steps or total_steps < 1:
        raise UserError("lora: adalora needs the total number of training steps (total_steps)")
    # The budget falls from one and a half times the rank to the rank between 10 % and 50 % of
    # the steps; the second half trains what is left, as in the AdaLoRA paper.
    return peft.AdaLoraConfig(
        init_r=rank + max(1, rank // 2),
        target_r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        tinit=total_steps // 10,
        tfinal=total_steps // 2,
        deltaT=max(1, total_steps // 100),
        total_step=total_steps,
    )


def _plain(*, use_rslora: bool = False, use_dora: bool = False) -> _Builder:
    def build(rank: int, alpha: Any, dropout: float, _: int | None) -> _Config:
        return peft.LoraConfig(
            r=rank,
            lora_alpha=alpha,
            lora_dropout=dropout,
            use_rslora=use_rslora,
            use_dora=use_dora,
        )

    return build


LORA_KINDS: Mapping[str, _Builder] = {
    "lora": _plain(),
    "rslora": _plain(use_rslora=True),
    "dora": _plain(use_dora=True),
    "adalora": _adalora,
}
"""What `add_lora` can add, by name."""


def first_rank(config: Any) -> int:
    """Return the rank that the factors are made with; AdaLoRA's is above the one it ends with."""
    return int(getattr(config, "init_r", config.r))


def alpha_at(kind: str, rank: int, alpha: float, other: int) -> float:
    """Return the alpha with which rank `other` learns as steadily as `rank` does with `alpha`.

    The update's scale falls with the root of the rank, as in rsLoRA (Kalajdzievski 2023). With the
    same scale at every rank, a high one diverges at a learning rate that suits a low one. PEFT
    divides alpha by the rank, for rsLoRA by its root.
    """
    if other == rank:
        return alpha
    before, after = (LORA_KINDS[kind](each, 1, 0.0, 1) for each in (rank, other))
    grown = first_rank(after) / first_rank(before)
    return alpha if before.use_rslora else alpha * grown**0.5


def name_base(config: peft.PeftConfig, lm: LanguageModel) -> None:
    """Say in a configuration of PEFT which model it is for, so that its folder alone loads."""
    config.task_type = TASK_TYPES[lm.family]
    config.base_model_name_or_path, config.revision = lm.place, lm.revision


def size_of_lora(lm: LanguageModel, kind: str, rank: int, targets: Sequence[str] | None) -> int:
    """Return how many numbers `add_lora` would train, without adding anything."""
    names = attention_projections(lm.model) if targets is None else targets
    linear = linear_modules(lm.model)
    places = places_of({n: m for n, m in linear.items() if matches(n, names)})
    made = first_rank(LORA_KINDS[kind](rank, 1, 0.0, 1))
    # AdaLoRA has a singular value beside each pair of vectors, DoRA a magnitude for each output.
    values, magnitudes = kind == "adalora", kind == "dora"
    return sum(
        made * (place.width_in + place.width_out + values) + magnitudes * place.width_out
        for place in places
    )
