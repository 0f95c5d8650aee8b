"""Checkpoints: tensors as safetensors, the rest as JSON, switched over in one rename.

`state.json` names the tensor file that belongs to it; both are written under temporary names
first, so that a kill at any moment leaves the last whole checkpoint in force.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from safetensors.torch import load_file, save_file

from prefixnas.base.errors import UserError
from prefixnas.base.files import write_text

T = TypeVar("T")

FORMAT = 2
"""Of checkpoints; 1 named evaluations and phases otherwise, so that its notes are not found."""

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


def save_checkpoint(folder: Path, state: Mapping[str, Any], serial: int) -> None:
    """Write nested `state` of dicts, lists, tensors and JSON values.

    Args:
        folder: Where; made if missing.
        state: What.
        serial: A number that differs from the checkpoint before.
    """
    packed = Packed(state)
    write_tensors(folder, packed.tensors, serial)
    write_state(folder, packed.plain, serial)


def write_tensors(folder: Path, tensors: Mapping[str, torch.Tensor], serial: int) -> None:
    """Write the tensors of a checkpoint, which comes into force with `write_state`."""
    folder.mkdir(parents=True, exist_ok=True)
    name = _tensor_file(serial)
    temporary = folder / f"{name}.tmp"
    save_file(dict(tensors), temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(folder / name)


def write_state(folder: Path, plain: Any, serial: int) -> None:
    """Write the plain part of a checkpoint, whose tensors are those that have this serial."""
    name = _tensor_file(serial)
    data = {"format": FORMAT, "tensors": name, "state": plain}
    write_text(folder / "state.json", json.dumps(data))
    for old in folder.glob("tensors-*"):
        if old.name != name:
            old.unlink()


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Read the checkpoint in `folder`; None if there is none.

    Raises:
        UserError: The files are damaged.
    """
    path = folder / "state.json"
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        name, plain, written = data["tensors"], data["state"], data.get("format", 1)
        if written != FORMAT:
            raise UserError(
                f"{path}: written in format {written} by another version, this one goes on from "
                f"format {FORMAT} alone; finish the run with the version that its config.yaml names"
            )
        tensors = load_file(folder / name)
        state: dict[str, Any] = _unpack(plain, tensors)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path}: damaged checkpoint: {error}") from error
    return state


def noted(folder: Path, key: str, default: T) -> T:
    """Read one plain value of the checkpoint in `folder`, and no tensors.

    Raises:
        UserError: The file is damaged.
    """
    path = folder / "state.json"
    if not path.is_file():
        return default
    try:
        value: T = json.loads(path.read_text(encoding="utf-8"))["state"][key]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged checkpoint: {error}") from error
    return value


def _tensor_file(serial: int) -> str:
    return f"tensors-{serial:06d}.safetensors"


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
