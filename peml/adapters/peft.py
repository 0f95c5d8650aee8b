"""Write a prefix as a stock PEFT adapter: the type that holds its kind of attention, exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
from torch import Tensor
from transformers import PreTrainedModel

from peml.adapters import adaption_prompt, prefix_tuning
from peml.adapters.files import LORA_TENSORS
from peml.model.model import LanguageModel
from peml.prefix.handle import attach
from peml.prefix.sites import Site
from prefixnas.base.errors import UserError
from prefixnas.base.tensors import write_tensors
from prefixnas.network.modes import evaluation_mode

TOLERANCE = 1e-4
"""Most that logits may differ by, of the largest one."""
_ROUNDED = {torch.float16: 0.02, torch.bfloat16: 0.1}
"""The same in half precision, which rounds more."""
_INSTEAD = "use the format 'peml' (and peml.load) instead"


@dataclass(frozen=True)
class _Type:
    """A type of PEFT adapter: the models that it can't hold, and its contents."""

    why_not: Callable[[LanguageModel, Sequence[Site]], str | None]
    stock_adapter: Callable[
        [LanguageModel, Sequence[Site], Tensor], tuple[peft.PeftConfig, dict[str, Tensor]]
    ]


_TYPES: Mapping[str, _Type] = {
    "concat": _Type(prefix_tuning.why_not, prefix_tuning.stock_adapter),
    "parallel": _Type(adaption_prompt.why_not, adaption_prompt.stock_adapter),
}


def why_not(lm: LanguageModel, sites: Sequence[Site], attention: str) -> str | None:
    """Return the reason why no type of PEFT's can hold this model's prefix; None: one can."""
    return _TYPES[attention].why_not(lm, sites)


def write_peft(
    lm: LanguageModel,
    sites: Sequence[Site],
    blocks: Tensor,
    attention: str,
    folder: Path,
    base: Path,
    examples: Iterable[Tensor] = (),
) -> None:
    """Write ``adapter_config.json`` and ``adapter_model.safetensors``, and load them once.

    Args:
        lm: The model with LoRA merged and no prefix attached.
        sites: Where the prefix goes.
        blocks: ``[sites, 2, kv_heads, l, head_dim]``.
        attention: How it is read, ``"parallel"`` or ``"concat"``.
        folder: Where to write.
        base: The merged model's folder, named in the configuration.
        examples: Inputs to compare both on, beside a few tokens, ``[1, t]`` each.

    Raises:
        UserError: PEFT's format can't hold this model's prefix.
    """
    if (reason := why_not(lm, sites, attention)) is not None:
        kind = lm.model.config.model_type
        raise UserError(
            f"format 'peft' can't hold the prefix of a {kind} model: {reason}; {_INSTEAD}"
        )
    config, tensors = _TYPES[attention].stock_adapter(lm, sites, blocks)
    config.task_type = peft.TaskType.CAUSAL_LM
    config.base_model_name_or_path = str(base)
    config.inference_mode = True
    config.save_pretrained(str(folder))
    write_tensors(folder / LORA_TENSORS, tensors)
    tokens = torch.arange(1, 8)[None] % lm.model.config.vocab_size
    inputs = [tokens, *examples]
    with evaluation_mode(lm.model):
        ours = _ours(lm.model, sites, blocks, attention, inputs)
        _check(lm.model, ours, _theirs(lm.model, folder, inputs))


def _ours(
    model: PreTrainedModel,
    sites: Sequence[Site],
    blocks: Tensor,
    attention: str,
    inputs: Sequence[Tensor],
) -> list[Tensor]:
    """Return the logits of the model with its prefix attached."""
    handle = attach(model, sites, attention)
    try:
        with handle.using(blocks):
            return [model(input_ids=tokens.to(model.device)).logits for tokens in inputs]
    finally:
        handle.detach()


def _theirs(model: PreTrainedModel, folder: Path, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the logits of the adapter in a folder, as stock PEFT loads it."""
    stock: Any = peft.PeftModel.from_pretrained(model, str(folder))
    with evaluation_mode(stock):
        found = [stock(input_ids=tokens.to(model.device)).logits for tokens in inputs]
    base: Any = stock.base_model
    if isinstance(base, peft.AdaptionPromptModel):  # the model's own attention modules come back
        base.disable_adapter_layers()  # type: ignore[no-untyped-call]
    return found


def _check(model: PreTrainedModel, ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
    """Refuse an export that is not exact: it must not be written."""
    scale = max(1.0, _largest(ours))
    difference = _largest(a.float() - b.float() for a, b in zip(ours, theirs, strict=True)) / scale
    if not difference <= _ROUNDED.get(model.dtype, TOLERANCE):
        raise UserError(
            f"format 'peft' is not exact for a {model.config.model_type} model "
            f"(logits differ by {difference:.1e} of their size); {_INSTEAD}"
        )


def _largest(tensors: Iterable[Tensor]) -> float:
    """Return the largest size of a number in tensors; NaN where there is one in any of them."""
    return float(torch.stack([tensor.abs().max() for tensor in tensors]).max())
