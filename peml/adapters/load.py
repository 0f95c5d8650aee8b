"""Load what was trained."""

from __future__ import annotations

from dataclasses import replace
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from peml.adapters.adapted import Adapted
from peml.adapters.base import load_base
from peml.adapters.files import LORA, adapter_folder
from peml.adapters.lora import add_adapter, merge_adapter
from peml.adapters.manifest import Manifest, read_manifest
from peml.adapters.tensors import check_hashes, read_blocks, read_heads
from peml.answers.heads import TaskHeads
from peml.methods.method import Attached, attach_method
from peml.model.device import pick_device
from peml.model.model import LanguageModel
from peml.prefix.handle import attach

Trained = str | PathLike[str] | Adapted
"""A run directory, an adapter folder, what `train` returned, or what `load` made of it."""


def load(
    folder: str | PathLike[str],
    *,
    device: str | torch.device = "auto",
    dtype: str = "auto",
    model: str | Path | None = None,
) -> Adapted:
    """Load an adapter folder (or a run that has one), or a folder of ``peml export``.

    What merges is merged and the prefix attached: ``adapted.model(**inputs)`` and
    ``adapted.model.generate`` just work. A method that does not merge, or into one task alone, is
    attached, and ``with adapted.lm.on(task):`` says which task passes are of. Task heads, where
    there are any, are `Adapted.heads`.

    Args:
        folder: An adapter folder, a run directory, what `train` returned, or a folder written in
            the ``peml`` format.
        device: Where to put the model; ``auto``: the accelerator, or the CPU where there is none.
        dtype: As in `load_language_model`.
        model: The base model that it was trained on, where that is no longer where it was.

    Raises:
        UserError: The folder, or the base model that it names, can't be loaded, or there is no such
            device.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> import peml
        >>> config = peml.LanguageModelConfig(tasks=["embedded:sentiment"], train_limit=20)
        >>> objective = config.build(total_steps=1, seed=0)
        >>> objective.reset(None, seed=0)  # LoRA as it starts; a run would train it now
        >>> with TemporaryDirectory() as folder:
        ...     objective.save(Path(folder))
        ...     adapted = peml.load(folder)
        >>> adapted.family, adapted.manifest.base
        ('decoder', 'embedded:llama')
        >>> adapted.generate("Sentence: sam loved the salad.")  # doctest: +ELLIPSIS
        'the salad ...'
    """
    found = adapter_folder(folder)
    manifest = Manifest.read(found).on(model, found)
    lm, blocks, heads = open_adapter(found, manifest, pick_device(device), dtype)
    prefix = None
    if blocks is not None:
        prefix = attach(lm.model, manifest.sites, manifest.attention)
        prefix.set(blocks)
    return Adapted(lm, heads, prefix, manifest, Path(folder))


def manifest_of(adapter: Trained) -> Manifest:
    """Return what a trained adapter says of itself, without loading a model.

    Raises:
        UserError: The folder is none.
    """
    return adapter.manifest if isinstance(adapter, Adapted) else read_manifest(adapter)


def opened(
    adapter: Trained, device: str | torch.device, dtype: str, model: str | Path | None
) -> Adapted:
    """Return what `load` made of an adapter, or what it makes of it now.

    Raises:
        UserError: As `load`.
    """
    if isinstance(adapter, Adapted):
        return adapter
    return load(adapter, device=device, dtype=dtype, model=model)


def attach_trained(lm: LanguageModel, folder: Path, manifest: Manifest) -> Attached | None:
    """Put the method of an adapter folder into its base model, as it was trained, frozen.

    Raises:
        UserError: Its weights are damaged, or of another model.
    """
    if manifest.method is None:
        return None
    method, setting = manifest.trained_method()
    attached = attach_method(method, lm, setting)
    attached.load(folder)
    for parameter in attached.parameters():
        parameter.requires_grad_(False)
    return attached


def open_adapter(
    folder: Path,
    manifest: Manifest,
    device: str | torch.device,
    dtype: str,
    task: str | None = None,
    *,
    whole: bool = False,
) -> tuple[LanguageModel, Tensor | None, TaskHeads | None]:
    """Return the model, the prefix (not attached) and the heads of an adapter folder.

    What merges is merged, for a task if one is given; what does not is attached, and so is
    everything to a base model that stays quantised: with `whole` it does not.

    Raises:
        UserError: The folder, or the base model that it names, can't be loaded.
    """
    check_hashes(folder, manifest)
    lm = load_base(folder, manifest, device, dtype, whole=whole)
    merges = lm.quantize is None
    if manifest.lora is not None:
        put = merge_adapter if merges else add_adapter
        lm = replace(lm, model=put(lm.model, folder / LORA, manifest.lora))
    attached = attach_trained(lm, folder, manifest)
    if merges and attached is not None and (task is not None or attached.method.merges == "always"):
        attached.merge(task)
        lm.attached.clear()
    heads = read_heads(folder, manifest)
    if heads is not None:
        heads.to(lm.device).requires_grad_(False)
    return lm, read_blocks(folder, manifest), heads
