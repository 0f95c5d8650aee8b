"""A stock PEFT adapter, which needs nothing of this project: LoRA, or a method written as one."""

from __future__ import annotations

import dataclasses
import shutil
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


def copy_lora(lm: LanguageModel, trained: Path, folder: Path) -> None:
    """Write LoRA, or its kin of PEFT, as it was trained, and the tokenizer beside it.

    Args:
        lm: The base model, named in the configuration: it may lie elsewhere than in training.
        trained: The PEFT adapter.
        folder: Where to write.
    """
    config = peft.PeftConfig.from_pretrained(str(trained))
    name_base(config, lm)
    config.save_pretrained(str(folder))
    shutil.copyfile(trained / LORA_TENSORS, folder / LORA_TENSORS)
    lm.tokenizer.save_pretrained(folder)


def with_stock_lora(lm: LanguageModel, folder: Path) -> LanguageModel:
    """Return a base model with the adapter of a folder in it, as stock PEFT loads it."""
    wrapped: Any = peft.PeftModel.from_pretrained(lm.model, str(folder))
    with torch.no_grad():
        return dataclasses.replace(lm, model=wrapped.get_base_model())
