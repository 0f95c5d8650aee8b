"""Files: YAML in, text and folders out whole or not at all."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from prefixnas.base.errors import UserError
from prefixnas.base.locks import LOCK


def load_yaml(text: str, where: str) -> Any:
    """Parse YAML with the safe loader.

    Raises:
        UserError: A syntax error, with its file, line and column, or a key that occurs twice.
    """
    try:
        return yaml.load(text, _UniqueKeyLoader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an impossible date
        mark = getattr(error, "problem_mark", None)
        place = f" line {mark.line + 1}, column {mark.column + 1}:" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{where}:{place} not valid YAML: {problem}") from error


class _UniqueKeyLoader(yaml.SafeLoader):
    """The safe loader, which refuses a key that occurs twice instead of dropping the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping; see the class."""
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(getattr(key_node, "value", key_node))
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} occurs twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """Parse a YAML file.

    Raises:
        UserError: The file is missing, unreadable or not YAML.
    """
    return load_yaml(read_text(path), str(path))


def read_text(path: Path) -> str:
    """Read a UTF-8 file.

    Raises:
        UserError: The file is missing or unreadable.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: cannot be read: not UTF-8 text") from error


def make_folder(folder: Path) -> None:
    """Make a folder that is to be written to, with those above it.

    Raises:
        UserError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror}") from error


def refuse_used(folder: Path, marker: str, what: str, *, resume: bool = False) -> None:
    """Refuse to begin something in a folder that holds anything, or to resume what is not there.

    Args:
        folder: The folder.
        marker: The file that lies in a folder in which it was begun.
        what: What is to begin ("run", "comparison").
        resume: Whether it goes on instead.

    Raises:
        UserError: Says what is there, or what is not.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file, not a folder")
    begun = (folder / marker).is_file()
    if resume and not begun:
        raise UserError(f"{folder}: no {what} to resume (no {marker} in it)")
    if begun and not resume:
        raise UserError(f"{folder}: holds a {what} already; add --resume, or take another --out")
    if not resume and folder.is_dir() and not is_empty(folder):
        raise UserError(f"{folder}: is not empty; take another --out")


def is_empty(folder: Path) -> bool:
    """Tell whether a folder holds nothing but a lock and what a kill left half written."""
    return all(path.suffix == ".tmp" or path.name == LOCK for path in folder.iterdir())


def write_text(path: Path, text: str) -> None:
    """Write a text, whole or not at all; see `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write under a temporary name and rename it, so that `path` is never half written.

    Raises:
        UserError: The file cannot be written; its cause is the `OSError`.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error


def write_csv(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Write rows of one shape as CSV, whole or not at all; None is an empty cell.

    Raises:
        UserError: The file cannot be written.
    """
    rows = list(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
