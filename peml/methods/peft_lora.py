"""Low-rank weight updates on the attention projections, through PEFT."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import peft
from transformers.pytorch_utils import Conv1D

from peml.methods.adalora_handle import AdaLoraHandle
from peml.methods.lora_handle import ADAPTER, LoraHandle
from peml.methods.lora_kinds import LORA_KINDS, name_base
from peml.methods.targets import find_targets, linear_modules, target_names
from peml.model.device import isolated_random
from peml.model.model import LanguageModel
from prefixnas.base.errors import UserError, unknown

_HANDLES: Mapping[str, type[LoraHandle]] = {"adalora": AdaLoraHandle}
"""Kinds that do more than others, by name."""


def add_lora(
    lm: LanguageModel,
    kind: str = "lora",
    *,
    rank: int = 16,
    alpha: float = 32,
    dropout: float = 0.1,
    targets: Sequence[str] | None = None,
    total_steps: int | None = None,
    seed: int = 0,
) -> LoraHandle:
    """Put trainable low-rank updates on a model's projections; the base stays frozen.

    Each layer keeps the train or eval mode of the model; switching it is the caller's business.

    Args:
        lm: The model; changed in place.
        kind: ``"lora"``, ``"rslora"``, ``"dora"`` or ``"adalora"``.
        rank: Rank r. AdaLoRA starts at 1.5 r and ends at r on average.
        alpha: Scale of the update (divided by the rank).
        dropout: Dropout on the update's input, in training.
        targets: Names of linear modules, as in PEFT's ``target_modules``; None means all
            projections of the attention layers.
        total_steps: Number of optimiser steps to come; AdaLoRA's schedule needs it.
        seed: Seed of the fresh weights.

    Raises:
        UserError: Unknown kind, bad numbers, or targets that match nothing, or weights that the
            model uses in two places.
    """
    if kind not in LORA_KINDS:
        raise unknown("kind of LoRA", kind, LORA_KINDS)
    if rank < 1:
        raise UserError(f"lora: rank is {rank}, must be at least 1")
    if not 0 <= dropout < 1:
        raise UserError(f"lora: dropout is {dropout}, must be at least 0 and below 1")
    linear = linear_modules(lm.model)
    config = LORA_KINDS[kind](rank, alpha, dropout, total_steps)
    find_targets(lm.model, targets)
    config.target_modules = target_names(lm.model, targets)
    config.fan_in_fan_out = any(isinstance(module, Conv1D) for module in linear.values())
    with warnings.catch_warnings(), isolated_random(lm.device):
        # One flag for all layers: PEFT corrects it where a model mixes Conv1D and Linear.
        warnings.filterwarnings("ignore", message="fan_in_fan_out")
        wrapped = peft.get_peft_model(lm.model, config)
    name_base(wrapped.peft_config[ADAPTER], lm)
    lm.model.train(lm.model.training)
    handle = _HANDLES.get(kind, LoraHandle)(wrapped, kind, rank)
    handle.reset(seed)
    return handle
