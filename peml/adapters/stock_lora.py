"""What a method adds for one task, as a stock PEFT LoRA: the same numbers, without this project."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import peft
import torch
from transformers.pytorch_utils import Conv1D

from peml.adapters.files import LORA_TENSORS
from peml.methods.linear import LinearTerms
from peml.methods.lora_kinds import name_base
from peml.model.model import LanguageModel
from prefixnas.base.errors import UserError
from prefixnas.base.tensors import write_tensors


def write_stock_lora(
    lm: LanguageModel, attached: LinearTerms, task: str | None, folder: Path
) -> None:
    """Write the adapter and the tokenizer; alpha is the rank, so nothing is scaled.

    Args:
        lm: The base model, named in the configuration.
        attached: The method in it.
        task: For which task, where the method merges per task.
        folder: Where to write.

    Raises:
        UserError: The method does not merge, or needs a task.
    """
    updates = attached.updates(task)
    ranks = {len(a) for a, _ in updates.values()}
    if len(ranks) != 1:
        raise UserError("format 'peft': the layers' updates differ in rank")
    (rank,) = ranks
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=rank,
        lora_dropout=0.0,
        target_modules=sorted(updates),
        fan_in_fan_out=any(isinstance(layer, Conv1D) for layer in attached.layers.values()),
        inference_mode=True,
    )
    name_base(config, lm)
    config.save_pretrained(str(folder))
    tensors = {}
    for name, (a, b) in updates.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = a
        tensors[f"base_model.model.{name}.lora_B.weight"] = b
    write_tensors(folder / LORA_TENSORS, tensors)
    lm.tokenizer.save_pretrained(folder)


def with_stock_lora(lm: LanguageModel, folder: Path) -> LanguageModel:
    """Return a base model with the adapter of a folder in it, as stock PEFT loads it."""
    wrapped: Any = peft.PeftModel.from_pretrained(lm.model, str(folder))
    with torch.no_grad():
        return dataclasses.replace(lm, model=wrapped.get_base_model())
