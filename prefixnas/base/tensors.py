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

from prefixnas.base.errors import UserError
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


@contextmanager
def written(path: Path) -> Iterator[None]:
    """Make one line of what stops another library from writing below `path`.

    Raises:
        UserError: Its cause is the `OSError`, also where safetensors hid the number in a text.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        cause = error if isinstance(error, OSError) else _hidden(error)
        if cause is None:
            raise
        reason = cause.strerror or str(cause)
        raise UserError(f"{path}: cannot be written: {reason}") from cause


def _hidden(error: SafetensorError) -> OSError | None:
    number = re.search(r"os error (\d+)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else None
