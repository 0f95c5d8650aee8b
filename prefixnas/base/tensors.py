"""Tensor files: safetensors, written whole or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from prefixnas.base.errors import UserError, unknown
from prefixnas.base.files import write_bytes


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors under their names, from whatever device they are on.

    Raises:
        UserError: The file cannot be written; its cause is the `OSError`.
    """
    here = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, save(here, dict(metadata) if metadata else None))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        UserError: It is missing or damaged.
    """
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: damaged: {error}") from error
    return tensors


def check_tensors(
    path: Path, tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Refuse tensors that are not those that are expected, or hold something else than numbers.

    Args:
        path: Their file, for messages.
        tensors: By name.
        shapes: What is expected.

    Raises:
        UserError: Names the first tensor that is missing, unknown, of another shape or not finite.
    """
    for name in shapes:
        if name not in tensors:
            raise UserError(f"{path}: damaged: the tensor {name!r} is missing")
    for name, tensor in tensors.items():
        if name not in shapes:
            raise unknown("tensor", name, shapes, str(path))
        if tuple(tensor.shape) != shapes[name]:
            raise UserError(
                f"{path}: the tensor {name!r} has the shape {[*tensor.shape]}, "
                f"expected {[*shapes[name]]}"
            )
        if not bool(tensor.isfinite().all()):
            raise UserError(
                f"{path}: damaged: the tensor {name!r} holds values that are no numbers"
            )


@contextmanager
def written(path: Path) -> Iterator[None]:
    """Make one line of what stops another library from writing below `path`.

    Raises:
        UserError: Its cause is the `OSError`, also where a library in Rust (safetensors,
            tokenizers) hid the number in the text of an error of its own.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        cause = error if isinstance(error, OSError) else _hidden(error)
        if cause is None:
            raise
        reason = cause.strerror or str(cause)
        raise UserError(f"{path}: cannot be written: {reason}") from cause


def _hidden(error: Exception) -> OSError | None:
    number = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else None
