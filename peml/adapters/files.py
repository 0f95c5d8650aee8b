"""The files of an adapter folder, and folders that are there whole or not at all."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from peml.methods.beside import TENSORS
from peml.prefix.sites import Site
from prefixnas.base.errors import UserError
from prefixnas.base.files import as_path, parse_json, read_text, sweep_beside, write_text
from prefixnas.base.locks import try_lock
from prefixnas.base.tensors import write_tensors, written

MANIFEST, PREFIX, HEADS, LORA = "peml.json", "prefix.safetensors", "heads.safetensors", "lora"
METHOD = TENSORS
LORA_CONFIG, LORA_TENSORS = "adapter_config.json", "adapter_model.safetensors"


def adapter_folder(folder: str | PathLike[str]) -> Path:
    """Return the adapter folder itself, where a run directory that has one may stand for it.

    Raises:
        UserError: It is no path.
    """
    folder = as_path(folder, "adapter")
    inside = folder / "adapter"
    return inside if (inside / MANIFEST).is_file() else folder


def read_object(path: Path, most: int) -> dict[str, Any]:
    """Read a JSON object of at most `most` bytes.

    Raises:
        UserError: It cannot be read, or is something else.
    """
    try:
        data = parse_json(read_text(path, most))
    except ValueError as error:
        raise UserError(f"{path}: damaged: {error}") from error
    if not isinstance(data, dict):
        raise UserError(f"{path}: damaged: expected an object of keys")
    return data


def save_prefix(blocks: Tensor, sites: Sequence[Site], attention: str, folder: Path) -> None:
    """Write the blocks, and beside them which module each one is for and how it is read."""
    known = json.dumps({"attention": attention, "sites": [site.path for site in sites]})
    # One entry: safetensors writes several in random order, and the same prefix is the same file.
    write_tensors(folder / PREFIX, {"blocks": blocks}, {"prefix": known})


def save_heads(heads: nn.Module, folder: Path) -> None:
    """Write the weights of task heads."""
    write_tensors(folder / HEADS, heads.state_dict())


def hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of an adapter folder that holds what was trained."""
    held = [PREFIX, HEADS, METHOD, *(f"{LORA}/{name}" for name in (LORA_CONFIG, LORA_TENSORS))]
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in held
        if (folder / name).is_file()
    }


@contextmanager
def new_folder(folder: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """Give a temporary folder that takes its name only when it is complete.

    What kills left of earlier ones is taken away first.

    Args:
        folder: The name.
        replace: Put it in the place of a folder that is there and not empty.

    Raises:
        UserError: There is one that must stay, or the folder can't be written.
    """
    # As cp has it: a link is the folder that it names, and so are ".", ".." and "out/".
    out = as_path(folder, "the folder to write").expanduser().resolve()
    mark = uuid.uuid4().hex[:8]
    with written(Path(folder)):
        _sweep(out)
        occupied = out.exists() and (not out.is_dir() or any(out.iterdir()))
        if occupied and not replace:
            raise UserError(f"{folder} exists and is not empty: name a new folder")
        inside = out.is_dir() and not occupied
        new = out / f".{mark}.new" if inside else out.with_name(f".{out.name}.{mark}.new")
        new.mkdir(parents=True)
        try:
            with try_lock(new) or nullcontext():  # which ends with this process
                yield new
                _let_read(new)
                _move_up(new) if inside else _take_name(new, out, mark, replace)
        finally:
            shutil.rmtree(new, ignore_errors=True)


def _let_read(new: Path) -> None:
    """Give all files the mode of any new one; safetensors lets nobody else read what it writes."""
    usual = new / ".usual"
    usual.touch()
    mode = usual.stat().st_mode
    usual.unlink()
    for path in new.rglob("*"):
        if path.is_file():
            path.chmod(mode)


_NAMES = ".names"
"""In a folder whose files move up: which ones these are."""


def _move_up(new: Path) -> None:
    """Fill an empty folder, which stays the very folder that it is; the manifest comes last."""
    names = sorted((path.name for path in new.iterdir()), key=lambda name: (name == MANIFEST, name))
    write_text(new / _NAMES, json.dumps(names))
    for name in names:
        (new / name).rename(new.parent / name)
    shutil.rmtree(new)


def _sweep(out: Path) -> None:
    """Take away what kills left below and beside a name; what was moving up is moved back."""
    for left in out.glob(".*.new") if out.is_dir() else ():
        if re.fullmatch(r"\.[0-9a-f]{8}\.new", left.name) and (lock := try_lock(left)) is not None:
            with lock:
                moving = (left / _NAMES).is_file()
                for name in parse_json(read_text(left / _NAMES)) if moving else ():
                    if (out / name).exists() and not (left / name).exists():
                        (out / name).rename(left / name)
                shutil.rmtree(left)
    if out.parent.is_dir():
        sweep_beside(out)


def _take_name(new: Path, out: Path, mark: str, replace: bool) -> None:
    """Put a folder in the place of another, if it may, which is deleted only then."""
    old = out.with_name(f".{out.name}.{mark}.old")
    try:
        if replace and out.exists():
            out.rename(old)
        new.rename(out)
    finally:
        shutil.rmtree(old, ignore_errors=True)
