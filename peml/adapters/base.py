"""The base model of an adapter folder, before LoRA is merged into it."""

from __future__ import annotations

from pathlib import Path

import torch

from peml.adapters.manifest import Manifest
from peml.model.load import load_language_model, load_with_prefix
from peml.model.model import LanguageModel
from peml.model.quantize import dequantise
from prefixnas.base.errors import UserError


def load_base(
    folder: Path,
    manifest: Manifest,
    device: str | torch.device,
    dtype: str,
    *,
    whole: bool = False,
) -> LanguageModel:
    """Load the model that an adapter folder names, or the merged one that it holds.

    Args:
        folder: The adapter folder.
        manifest: What it says.
        device: Where to put the model.
        dtype: As in `load_language_model`.
        whole: Put the weights that quantised ones stand for in the place of those.

    Raises:
        UserError: It can't be loaded, or is of another architecture.
    """
    if manifest.base is None:
        lm = load_with_prefix(folder, device=device, dtype=dtype)
    else:
        base = Path(manifest.base)
        if base.is_absolute() and not base.exists():
            raise UserError(
                f"{folder}: its base model {manifest.base!r} does not exist; if it was moved, say "
                "where it is now with --model"
            )
        revision = manifest.revision
        lm = load_language_model(
            manifest.base,
            device=device,
            dtype=dtype,
            revision=revision,
            quantize=manifest.quantize,
        )
    if lm.model.config.model_type != manifest.architecture:
        raise UserError(
            f"{folder}: was made for a {manifest.architecture} model, "
            f"but {lm.name} is {lm.model.config.model_type}"
        )
    if whole and lm.quantize is not None:
        dequantise(lm.model)
        lm.quantize = None
    return lm
