"""A frozen base model with weights of 4 or 8 bits, through bitsandbytes."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from prefixnas.base.errors import UserError, first_line, unknown

Quantize = Literal["nf4", "int8"]
KINDS: tuple[Quantize, ...] = ("nf4", "int8")
"""NF4 of QLoRA (Dettmers et al. 2023), and LLM.int8() (Dettmers et al. 2022)."""


def quantising(kind: Quantize | None, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Return what `from_pretrained` takes to quantise a model while it is loaded.

    Args:
        kind: One of `KINDS`; None: nothing is to be done.
        device: Where the model is to be.
        dtype: Of what its layers read and write.

    Raises:
        UserError: Unknown kind, no bitsandbytes, or a device that it doesn't compute on.
    """
    if kind is None:
        return {}
    _check(kind, device, dtype)
    config: Any = BitsAndBytesConfig
    made = (
        config(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
        if kind == "nf4"
        else config(load_in_8bit=True)
    )
    return {"quantization_config": made, "device_map": {"": device}}


def _check(kind: str, device: torch.device, dtype: torch.dtype) -> None:
    where = "key 'quantize'"
    if kind not in KINDS:
        raise unknown("value", kind, KINDS, where)
    try:
        bnb = importlib.import_module("bitsandbytes")
    except ImportError:
        raise UserError(
            f"{where}: {kind!r} needs the package 'bitsandbytes' "
            "(pip install 'prefixnas[quantize]')"
        ) from None
    try:
        _try(bnb, kind, device, dtype)
    except Exception as error:  # of many kinds, by version and backend
        said = first_line(error)
        raise UserError(
            f"{where}: bitsandbytes {bnb.__version__} does not compute {kind!r} on "
            f"{device.type!r} here; leave the key out ({said})"
        ) from error


def _try(bnb: Any, kind: str, device: torch.device, dtype: torch.dtype) -> None:
    """Pass a small layer forwards and backwards, as training does."""
    if kind == "nf4":
        layer = bnb.nn.Linear4bit(64, 64, compute_dtype=dtype, quant_type="nf4")
    else:
        layer = bnb.nn.Linear8bitLt(64, 64, has_fp16_weights=False)
    nn.Module.to(layer, device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = torch.ones(2, 64, device=device, dtype=dtype, requires_grad=True)
        layer(read).sum().backward()
    if read.grad is None or not read.grad.isfinite().all():
        raise RuntimeError("a trial pass has no gradient")


_BLOCK = 64
"""Weights that share a scale in nf4."""


def settle_quantized(model: PreTrainedModel, name: str) -> None:
    """Put what a freshly loaded model keeps aside, if quantised, where copies of it find it.

    Raises:
        UserError: Weights that bitsandbytes turns round, so that saved again they would be others,
            or that its kernels for CPUs spoil.
    """
    for path, module in model.named_modules():
        if module.__class__.__name__ == "Linear4bit":
            _check_width(name, path, module)
        if issubclass(getattr(module, "source_cls", object), Conv1D):
            raise UserError(
                f"{name}: key 'quantize': {path!r} is a Conv1D layer, whose weights do not come "
                "back as they were; leave the key out"
            )
        if hasattr(module, "init_8bit_state"):
            module.init_8bit_state()
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # It would reorder the weights in passes without gradient, and compute in bfloat16.
            module.support_avx512bf16_for_cpu = False


def _check_width(name: str, path: str, layer: Any) -> None:
    """Refuse what comes back wrong: rows on a CPU that blocks do not fill."""
    if layer.weight.device.type == "cpu" and layer.in_features % _BLOCK:
        raise UserError(
            f"{name}: key 'quantize': on CPUs bitsandbytes computes nf4 for layers alone that read "
            f"a multiple of {_BLOCK} numbers, and {path!r} reads {layer.in_features}; take int8"
        )


def kept_aside(model: nn.Module) -> Iterator[object]:
    """Yield what quantised layers hold beside parameters and buffers: scales and 8-bit weights."""
    for module in model.modules():
        for name in ("state", "quant_state"):
            if (held := vars(module).get(name)) is not None:
                yield held


def dequantise(model: PreTrainedModel) -> None:
    """Put the whole weights that quantised ones stand for in their place, before all else."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.dequantize(model.dtype)  # type: ignore[no-untyped-call]
    model.requires_grad_(False)
