"""The tensors of an adapter folder, held against its manifest: names, shapes, numbers, hashes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from peml.adapters.files import HEADS, LORA, LORA_TENSORS, MANIFEST, METHOD, PREFIX, hashes
from peml.adapters.manifest import Manifest
from peml.answers.heads import TaskHeads
from peml.prefix.sites import block_shape
from prefixnas.base.errors import UserError
from prefixnas.base.tensors import check_tensors, read_tensors


def check_hashes(folder: Path, manifest: Manifest) -> None:
    """Refuse an adapter whose files are not those that were saved with its manifest.

    Adapters of an earlier format have no hashes; their tensors are checked alone.

    Raises:
        UserError: Names the file that is missing or was changed.
    """
    if manifest.files is None:
        return
    parts = {
        PREFIX: manifest.sites,
        HEADS: manifest.heads,
        METHOD: manifest.method,
        f"{LORA}/{LORA_TENSORS}": manifest.lora,
    }
    needed = {name for name, part in parts.items() if part} | set(manifest.files)
    found = hashes(folder)
    for name in sorted(needed):
        if name not in found:
            raise UserError(f"{folder / name} is missing")
        if found[name] != manifest.files.get(name):
            raise UserError(
                f"{folder / name}: damaged: not what was saved with the {MANIFEST} beside it"
            )


def read_blocks(folder: Path, manifest: Manifest) -> Tensor | None:
    """Return the prefix of an adapter folder, ``[sites, 2, kv_heads, l, head_dim]``, if it has one.

    Raises:
        UserError: It is missing, damaged, or not what the manifest says.
    """
    if not manifest.sites:
        return None
    kv_heads, head_dim = block_shape(manifest.sites)
    shape = (len(manifest.sites), 2, kv_heads, manifest.prefix_length, head_dim)
    return _read(folder / PREFIX, {"blocks": shape})["blocks"]


def read_heads(folder: Path, manifest: Manifest) -> TaskHeads | None:
    """Return the task heads of an adapter folder, if it has some.

    Raises:
        UserError: They are missing, damaged, or not what the manifest says.
    """
    known = manifest.heads
    if known is None:
        return None
    choices = known.get("choices")
    heads = TaskHeads(
        known["hidden_size"], known["outputs"], pooling=known["pooling"], choices=choices
    )
    shapes = {name: tuple(tensor.shape) for name, tensor in heads.state_dict().items()}
    heads.load_state_dict(_read(folder / HEADS, shapes))
    return heads


def _read(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    tensors = read_tensors(path)
    check_tensors(path, tensors, shapes)
    return tensors
