"""Which of transformers' attention functions a model calls, where the user names one."""

from __future__ import annotations

from typing import Any, Literal

import torch
from transformers import PreTrainedModel
from transformers.utils.import_utils import is_flash_attn_2_available

from prefixnas.base.errors import UserError, first_line

Implementation = Literal["sdpa", "eager", "flash_attention_2", "flex_attention"]
WHERE = "key 'attn_implementation'"


def set_attention(model: PreTrainedModel, name: Implementation, *, training: bool = True) -> None:
    """Let a model attend by the function that is named; nothing is fetched from the hub.

    Args:
        model: The model, where it is to compute.
        name: The function.
        training: Whether gradients will be asked for.

    Raises:
        UserError: A package or a GPU that it needs is missing, or the model can't use it.
    """
    if name == "flash_attention_2":
        _check_flash(model)
    if name == "flex_attention" and training and model.device.type == "cpu":
        raise UserError(
            f"{WHERE}: {name!r} has no backward pass on a CPU; take 'sdpa', or leave the key out"
        )
    try:
        model.set_attn_implementation(name)
        found: Any = model.config._attn_implementation
    except Exception as error:  # of several kinds, by what is missing
        found, said = None, first_line(error)
        raise UserError(_unfit(model, name, said)) from error
    if found != name:
        raise UserError(_unfit(model, name, f"it attends by {found!r}"))


def _check_flash(model: PreTrainedModel) -> None:
    if model.device.type != "cuda":
        raise UserError(f"{WHERE}: 'flash_attention_2' needs a GPU; take 'sdpa'")
    if not is_flash_attn_2_available():
        raise UserError(
            f"{WHERE}: 'flash_attention_2' needs the package 'flash-attn' (pip install flash-attn)"
        )
    if model.dtype not in (torch.float16, torch.bfloat16):
        raise UserError(f"{WHERE}: 'flash_attention_2' needs --dtype bfloat16 or float16")
    own = getattr(model, "_compatible_flash_implementations", None)
    if own and "flash_attention_2" not in own:
        raise UserError(_unfit(model, "flash_attention_2", "it has a kernel of its own"))


def _unfit(model: PreTrainedModel, name: str, said: str) -> str:
    kind = model.config.model_type
    return f"{WHERE}: a {kind} model cannot attend by {name!r}: {said}; leave the key out"
