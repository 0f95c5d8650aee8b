"""Checkpoints: tensors as safetensors, the rest as JSON, switched over in one rename.

`state.json` names the tensor file that belongs to it; both are written under temporary names
first, so that a kill at any moment leaves the last whole checkpoint in force. Both carry a hash of
what is in them, and the checkpoint before the last one stays as `previous.json` with its tensors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from safetensors.torch import load_file, save

from prefixnas.base.errors import UserError
from prefixnas.base.files import parse_json, write_bytes, write_text

T = TypeVar("T")

FORMAT = 2
"""Of checkpoints; 1 named evaluations and phases otherwise, so that its notes are not found."""

STATE, PREVIOUS = "state.json", "previous.json"

_TENSOR, _INT_KEYS = "#tensor", "#int-keys"


class Packed:
    """A state in the form in which it is written: a copy, which later changes do not reach.

    Args:
        state: Nested dicts, lists, tensors and JSON values.
        place: Where in a checkpoint it will be: the keys that lead there.

    Attributes:
        plain: JSON, with a name for each tensor.
        tensors: The tensors by name, on the CPU.
    """

    def __init__(self, state: Any, place: Sequence[str] = ()) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self.plain = _pack(state, "".join(f"/{key}" for key in place), self.tensors)


def save_checkpoint(folder: Path, state: Mapping[str, Any]) -> None:
    """Write nested `state` of dicts, lists, tensors and JSON values.

    Args:
        folder: Where; made if missing.
        state: What.
    """
    packed = Packed(state)
    write_state(folder, packed.plain, save_tensors(folder, packed.tensors))


def save_tensors(folder: Path, tensors: Mapping[str, torch.Tensor]) -> str:
    """Write the tensors of a checkpoint, which comes into force with `write_state`.

    Returns:
        The file's name: what is in it, as a hash, so that damage shows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = save(dict(tensors))
    name = _tensor_file(data)
    write_bytes(folder / name, data)
    return name


def write_state(folder: Path, plain: Any, tensors: str) -> None:
    """Write the plain part of a checkpoint; the last one with other tensors is kept beside it."""
    state = folder / STATE
    data = {"format": FORMAT, "tensors": tensors, "state": plain}
    kept = {tensors}
    if state.is_file() and _content(state)["tensors"] != tensors:
        write_bytes(folder / PREVIOUS, state.read_bytes())
    with suppress(OSError, ValueError, KeyError, TypeError):  # missing or damaged: of no use
        kept.add(_content(folder / PREVIOUS)["tensors"])
    write_text(state, json.dumps({**data, "hash": _hash(json.dumps(data).encode())}))
    for old in folder.glob("tensors-*"):
        if old.name not in kept:
            old.unlink()


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Read the checkpoint in `folder`, or the one before it if the last is damaged.

    Returns:
        None if there is none.

    Raises:
        UserError: There are checkpoints, and none is whole, or they are another version's.
    """
    path, _ = whole(folder)
    if path is None:
        return None
    content = _content(path)
    state: dict[str, Any] = _unpack(content["state"], load_file(folder / content["tensors"]))
    return state


def noted(folder: Path, key: str, default: T) -> T:
    """Read one plain value of the checkpoint that `load_checkpoint` takes, and no tensors."""
    path, _ = whole(folder)
    if path is None:
        return default
    value: T = _content(path)["state"][key]
    return value


def go_back(folder: Path) -> str:
    """Put the checkpoint before the last one into force, if the last one is damaged.

    Returns:
        What is wrong with the last one; empty: nothing.
    """
    path, damage = whole(folder)
    if path is not None and damage:
        write_bytes(folder / STATE, path.read_bytes())
    return damage


def whole(folder: Path) -> tuple[Path | None, str]:
    """Find the newest checkpoint that is whole.

    Returns:
        Its file, None if there is no checkpoint at all; and what is wrong with a newer one.

    Raises:
        UserError: There are checkpoints, and none is whole, or they are another version's.
    """
    paths = [folder / name for name in (STATE, PREVIOUS)]
    if not any(path.is_file() for path in paths):
        return None, ""
    if not (first := _damage(paths[0])):
        return paths[0], ""
    if not _damage(paths[1]):
        return paths[1], first
    raise UserError(f"{first}; no checkpoint is whole, so begin again with another --out")


def _damage(path: Path) -> str:
    """Return what is wrong with a checkpoint; empty if it is whole."""
    try:
        content = _content(path)
        known, tensors = content.pop("hash", None), path.parent / content["tensors"]
        if content.get("format", 1) != FORMAT:
            raise UserError(
                f"{path}: written in format {content.get('format', 1)} by another version, this "
                f"one goes on from format {FORMAT} alone; finish the run with the version that its "
                "config.yaml names"
            )
        if known != _hash(json.dumps(content).encode()):
            return f"{path}: damaged checkpoint: its text was changed"
        if _tensor_file(tensors.read_bytes()) != tensors.name:
            return f"{tensors}: damaged checkpoint: its tensors were changed"
    except UserError:
        raise
    except FileNotFoundError as error:
        return f"{error.filename}: missing from the checkpoint"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{path}: damaged checkpoint: {error}"
    return ""


def _content(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = parse_json(path.read_text(encoding="utf-8"))
    return content


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _tensor_file(data: bytes) -> str:
    return f"tensors-{_hash(data)[:32]}.safetensors"


def _pack(value: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        name = f"{len(tensors)}{path}"  # keys may hold slashes, so the path alone is ambiguous
        whole = torch.contiguous_format
        tensors[name] = value.detach().to("cpu", copy=True, memory_format=whole)
        return {_TENSOR: name}
    if isinstance(value, Mapping):
        kinds = {type(key) for key in value}
        if not (kinds <= {str} or kinds == {int}) or {_TENSOR, _INT_KEYS} & set(value):
            raise TypeError(f"{path}: a checkpoint cannot hold a mapping with keys {list(value)}")
        packed = {str(key): _pack(item, f"{path}/{key}", tensors) for key, item in value.items()}
        return {_INT_KEYS: packed} if kinds == {int} else packed
    if isinstance(value, (list, tuple)):
        return [_pack(item, f"{path}/{index}", tensors) for index, item in enumerate(value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{path}: a checkpoint cannot hold {type(value).__name__}")


def _unpack(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(value, dict):
        if set(value) == {_TENSOR}:
            return tensors[value[_TENSOR]]
        if set(value) == {_INT_KEYS}:
            return {int(key): _unpack(item, tensors) for key, item in value[_INT_KEYS].items()}
        return {key: _unpack(item, tensors) for key, item in value.items()}
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    return value


class Stateful(Protocol):
    """Whatever can be put into a checkpoint."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return nested dicts of tensors and JSON values."""
        ...

    def load_state_dict(self, state: Any) -> Any:
        """Restore it."""
        ...
