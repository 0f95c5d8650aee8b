"""Files: texts in, texts and folders out, whole or not at all."""

from __future__ import annotations

import csv
import fcntl
import glob
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from prefixnas.base.errors import UserError, brief
from prefixnas.base.locks import LOCK, try_lock


def as_path(value: object, what: str) -> Path:
    """Return a path that a caller gave.

    Raises:
        UserError: It is none; `what` says in front what it is for.
    """
    try:
        return Path(value)  # type: ignore[arg-type]
    except TypeError as error:
        raise UserError(f"{what}: expected a path, not {brief(value)}") from error


def read_text(path: Path, most: int | None = None) -> str:
    """Read a UTF-8 file.

    Args:
        path: The file.
        most: How many bytes it may have.

    Raises:
        UserError: The file is missing or unreadable, or has more.
    """
    try:
        with path.open("rb") as file:
            data = file.read(-1 if most is None else most + 1)
        if most is not None and len(data) > most:
            raise UserError(f"{path}: more than {most:,} bytes")
        return data.decode("utf-8")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: cannot be read: not UTF-8 text") from error


def parse_json(text: str | bytes) -> Any:
    """Parse JSON.

    Raises:
        ValueError: It is none, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def make_folder(folder: Path) -> None:
    """Make a folder that is to be written to, with those above it.

    Raises:
        UserError: It cannot be made.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name what cannot be written: a full disk gives Python's errors no name.

    Raises:
        UserError: Its cause is the `OSError`.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error


def refuse_used(folder: Path, marker: str, what: str, *, resume: bool = False) -> bool:
    """Refuse to begin something in a folder that holds anything; tell whether it goes on there.

    What is to go on begins where the folder is not there or empty: a command that is called again
    until it is done need not know whether it had begun.

    Args:
        folder: The folder.
        marker: The file that lies in a folder in which it was begun.
        what: What is to begin ("run", "comparison").
        resume: Whether it goes on where it was begun.

    Returns:
        Whether it was begun and goes on.

    Raises:
        UserError: Says what is there.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file, not a folder")
    begun = (folder / marker).is_file()
    if begun and not resume:
        raise UserError(f"{folder}: holds a {what} already; add --resume, or take another --out")
    if not begun and folder.is_dir() and not is_empty(folder):
        if resume:
            raise nothing_begun(folder, marker, what)
        raise UserError(f"{folder}: is not empty; take another --out")
    return begun


def nothing_begun(folder: Path, marker: str, what: str) -> UserError:
    """Return the error of a folder in which nothing was begun; see `refuse_used`."""
    return UserError(f"{folder}: no {what} to resume (no {marker} in it)")


def is_empty(folder: Path) -> bool:
    """Tell whether a folder holds nothing but a lock and what a kill left half written."""
    return all(path.suffix == ".tmp" or path.name == LOCK for path in folder.iterdir())


def sweep(folder: Path) -> None:
    """Take away what a kill left in a folder that this process holds.

    These are files and folders that were to take another's name when they were complete, and
    folders that one had taken the name of; see `sweep_beside`.
    """
    for path in sorted(folder.iterdir()):
        if left := _LEFT.fullmatch(path.name):
            sweep_beside(folder / left["name"])
        elif path.suffix == ".tmp" and path.is_file():
            path.unlink(missing_ok=True)


def sweep_beside(named: Path) -> None:
    """Take away what a kill left of a folder that was to take a name.

    One that lost the name, and no other has it, gets it back. One that a process holds (`try_lock`)
    stays.
    """
    for path in sorted(named.parent.glob(f".{glob.escape(named.name)}.*.*")):
        left = _LEFT.fullmatch(path.name)
        if left is None or left["name"] != named.name or (lock := try_lock(path)) is None:
            continue
        with lock:
            if left["end"] == "old" and not named.exists():
                path.rename(named)
            else:
                shutil.rmtree(path, ignore_errors=True)


_LEFT = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.(?P<end>new|old)")


def write_text(path: Path, text: str) -> None:
    """Write a text, whole or not at all; see `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write under a temporary name and rename it, so that `path` is never half written.

    Raises:
        UserError: The file cannot be written; its cause is the `OSError`.
    """
    with writing(path), _temporary(path) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        Path(file.name).replace(path)


@contextmanager
def _temporary(path: Path) -> Iterator[BinaryIO]:
    """Open the file that is to take a name, empty.

    Its own name is always the same, so that the next writer takes away what a kill left, unless
    another one is at it: then it is a name of its own.
    """
    usual = path.with_name(path.name + ".tmp")
    with usual.open("ab") as file:
        if _is_ours(file, usual):
            file.truncate(0)
            yield file
            return
    own = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with own.open("xb") as file:
            yield file
    finally:
        own.unlink(missing_ok=True)


def _is_ours(file: BinaryIO, path: Path) -> bool:
    """Lock an open file; tell whether no other writer had it, or has given it its name since."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False
    except OSError:  # a file system without locks
        return True


def write_csv(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Write rows of one shape as CSV, whole or not at all; None is an empty cell.

    Raises:
        UserError: The file cannot be written.
    """
    rows = list(rows)
    write_text(path, csv_text(list(rows[0]) if rows else [], rows))


def csv_text(names: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    """Return a table as CSV with a header, whose lines end with a newline.

    Args:
        names: The columns.
        rows: Values by column; an empty cell stands for None, and for a column that a row lacks.
    """
    lines = _Lines()
    writer = csv.DictWriter(lines, names, lineterminator=_Lines.end)
    writer.writeheader()
    writer.writerows(rows)
    return "".join(lines.written)


class _Lines:
    """What a CSV writer writes to.

    The writer quotes a carriage return only if its own lines end with one, and a bare one ends a
    line to whoever reads it.
    """

    end = "\r\n"

    def __init__(self) -> None:
        self.written: list[str] = []

    def write(self, line: str) -> None:
        self.written.append(line.removesuffix(self.end) + "\n")
