"""The LoRA of an adapter folder: a PEFT adapter, checked before PEFT sees it, put into a model."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import peft
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.save_and_load import get_peft_model_state_dict
from torch import nn
from transformers import PreTrainedModel

from peml.adapters.files import LORA_CONFIG, LORA_TENSORS, read_object
from peml.methods.targets import refuse_shared
from prefixnas.base.errors import UserError, brief, one_line
from prefixnas.base.tensors import check_tensors, read_tensors

_KINDS: Mapping[str, tuple[type[peft.LoraConfig], dict[str, bool]]] = {
    "lora": (peft.LoraConfig, {"use_rslora": False, "use_dora": False}),
    "rslora": (peft.LoraConfig, {"use_rslora": True, "use_dora": False}),
    "dora": (peft.LoraConfig, {"use_rslora": False, "use_dora": True}),
    "adalora": (peft.AdaLoraConfig, {"use_rslora": False, "use_dora": False}),
}

_OURS = frozenset(
    {"task_type", "peft_type", "peft_version", "base_model_name_or_path", "revision"}
    | {"inference_mode", "r", "target_modules", "lora_alpha", "lora_dropout", "fan_in_fan_out"}
    | {"use_rslora", "use_dora", "init_r", "target_r", "tinit", "tfinal", "deltaT"}
    | {"beta1", "beta2", "orth_reg_weight", "total_step", "auto_mapping"}
)
"""Keys that `save_adapter` sets; PEFT's others may name modules to import or weights to change.

`auto_mapping` names a module, too: only PEFT's AutoPeftModel, which is not used here, imports it.
"""

_LARGEST, _SIZE = 10**5, 10**6


def merge_adapter(model: PreTrainedModel, folder: Path, kind: str) -> PreTrainedModel:
    """Merge a PEFT adapter folder into a base model, in place.

    Args:
        model: The base model.
        folder: The folder.
        kind: Which of `LORA_KINDS` it holds.

    Raises:
        UserError: The folder is no whole adapter of this kind and model, or of weights that the
            model shares.
    """
    wrapped = with_adapter(model, folder, kind)
    merged: PreTrainedModel = wrapped.merge_and_unload()
    merged.requires_grad_(False)
    return merged


def add_adapter(model: PreTrainedModel, folder: Path, kind: str) -> PreTrainedModel:
    """Put a PEFT adapter folder into a base model beside its weights, in place and frozen.

    Raises:
        UserError: As `merge_adapter`.
    """
    added: PreTrainedModel = with_adapter(model, folder, kind).get_base_model()
    added.requires_grad_(False)
    added.train(False)
    return added


def with_adapter(model: PreTrainedModel, folder: Path, kind: str) -> Any:
    """Put a PEFT adapter folder into a base model, in place, and return PEFT's wrapper.

    Raises:
        UserError: As `merge_adapter`.
    """
    _check_config(folder / LORA_CONFIG, kind)
    path = folder / LORA_TENSORS
    if not path.is_file() and (old := sorted(folder.glob("*.bin"))):
        raise UserError(f"{old[0]}: pickled weights are not read; save them as {LORA_TENSORS}")
    tensors = read_tensors(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tensors that are missing, which is looked at below
            wrapped: Any = peft.PeftModel.from_pretrained(model, str(folder))
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        said = one_line(str(error))
        raise UserError(f"{folder}: can't load the LoRA adapter: {said}") from error
    expected = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    check_tensors(path, tensors, {name: tuple(each.shape) for name, each in expected.items()})
    refuse_shared(wrapped.get_base_model(), _wrapped_layers(wrapped))
    return wrapped


def _check_config(path: Path, kind: str) -> None:
    """Refuse a PEFT configuration that is not one of those that `save_adapter` writes."""
    if not path.is_file():
        raise UserError(f"{path} is missing")
    given = read_object(path, _SIZE)
    cls, switches = _KINDS[kind]
    plain: Any = cls(total_step=1) if cls is peft.AdaLoraConfig else cls()
    usual: dict[str, Any] = {**plain.to_dict(), "peft_type": plain.peft_type.value, **switches}
    for key in ("peft_type", *switches):
        if given.get(key, usual[key]) != usual[key]:
            raise UserError(
                f"{path}: key {key!r}: must be {usual[key]!r} for the kind {kind!r}, "
                f"not {brief(given[key])}"
            )
    for key, value in given.items():
        if key in usual and key not in _OURS and (value or usual[key]) and value != usual[key]:
            raise UserError(f"{path}: key {key!r}: must be {usual[key]!r}, not {brief(value)}")
    modules = given.get("target_modules", [])
    if not isinstance(modules, list) or not all(isinstance(name, str) for name in modules):
        raise UserError(
            f"{path}: key 'target_modules': must be a list of names, not {brief(modules)}"
        )
    scale = given.get("lora_alpha", 1)
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale <= _LARGEST:
        raise UserError(
            f"{path}: key 'lora_alpha': must be a number above 0 and at most {_LARGEST:,}, "
            f"not {brief(scale)}"
        )
    for key in ("r", "init_r", "target_r"):
        value = given.get(key, 1)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _LARGEST:
            raise UserError(
                f"{path}: key {key!r}: must be a whole number from 1 to {_LARGEST:,}, "
                f"not {brief(value)}"
            )


def _wrapped_layers(wrapped: peft.PeftModel) -> dict[str, nn.Module]:
    return {
        f"{name}.base_layer": module.get_base_layer()
        for name, module in wrapped.get_base_model().named_modules()
        if isinstance(module, BaseTunerLayer)
    }
