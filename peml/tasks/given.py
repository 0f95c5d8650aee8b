"""Tasks given by their keys, with records in memory, written as files: a run names files alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import yaml

from peml.tasks.files import PARQUET
from peml.tasks.sources import is_embedded
from peml.tasks.spec import SPLITS, make_spec
from prefixnas.base.errors import UserError, unknown
from prefixnas.base.files import make_folder, write_bytes


def write_task(task: Mapping[str, Any], folder: Path, *, anew: bool = True) -> Path:
    """Write a task that is given by the keys of a task file, and the records in it.

    Args:
        task: The keys; `name` and `source` must be there. `source` may also be records: a list of
            mappings, a `datasets.Dataset` or a data frame, which are split as a single file is, or
            a mapping from split to one of these.
        folder: Where the task file goes, and the files of records beside it.
        anew: Whether other files of these names may be written over.

    Returns:
        The task file.

    Raises:
        UserError: A key or a value that is not allowed, records that can't be written, or files of
            other content that are there.
    """
    task = {key: value if key == "source" else _plain(value) for key, value in task.items()}
    if missing := [key for key in ("name", "source") if key not in task]:
        raise UserError(f"a task that is given by its keys needs the key {missing[0]!r}")
    name = str(make_spec({**task, "source": task["name"]}).name)
    files: dict[str, bytes] = {}
    source = _source(task.get("source"), name, files)
    make_spec({**task, "source": source})
    text = yaml.safe_dump({**task, "source": source}, sort_keys=False, allow_unicode=True)
    files[f"{name}.yaml"] = text.encode()
    make_folder(folder)
    for file, content in files.items():
        path = folder / file
        if not anew and path.is_file() and path.read_bytes() != content:
            raise UserError(f"{path}: holds other data than task {name!r} is given with now")
        write_bytes(path, content)
    return folder / f"{name}.yaml"


def _plain(value: Any) -> Any:
    """Return a value of a key as YAML knows it: NumPy has numbers and texts of its own."""
    match value:
        case bool():
            return value
        case str():
            return str(value)
        case Integral():
            return int(value)
        case Real():
            return float(value)
        case Mapping():
            return {_plain(key): _plain(each) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
    return value


def _source(source: Any, name: str, files: dict[str, bytes]) -> Any:
    """Return the source as a task file says it; records in it become files."""
    if (content := _content(source, f"task {name!r}")) is not None:
        return _named(name, content, files)
    if not isinstance(source, Mapping):
        return _from_anywhere(source)
    if wrong := [split for split in source if split not in SPLITS]:
        raise unknown("split", wrong[0], SPLITS, f"task {name!r}, key 'source'")
    found: dict[str, Any] = {}
    for split, part in source.items():
        content = _content(part, f"task {name!r}, split {split!r}")
        known = None if content is None else _named(f"{name}-{split}", content, files)
        found[split] = known or _from_anywhere(part)
    return found


def _named(stem: str, content: tuple[str, bytes], files: dict[str, bytes]) -> str:
    suffix, data = content
    files[stem + suffix] = data
    return stem + suffix


def _content(data: Any, where: str) -> tuple[str, bytes] | None:
    """Return records as a file, by its format; None: they are none."""
    if hasattr(data, "to_parquet"):
        buffer = BytesIO()
        data.to_parquet(buffer)
        return PARQUET, buffer.getvalue()
    texts = isinstance(data, str | bytes) or not isinstance(data, Sequence)
    if texts or not all(isinstance(row, Mapping) for row in data):
        return None
    try:
        lines = [json.dumps(dict(row), ensure_ascii=False, allow_nan=False) for row in data]
        return ".jsonl", "".join(f"{line}\n" for line in lines).encode()
    except (TypeError, ValueError) as error:  # an object of a class, a number that is none
        raise UserError(f"{where}: a record can't be written as JSON: {error}") from error


def _from_anywhere(source: Any) -> Any:
    """Return a source that names files, by paths that hold in any folder."""
    if isinstance(source, Sequence) and not isinstance(source, str):
        return [_from_anywhere(item) for item in source]
    if isinstance(source, str) and is_embedded(source):
        return source
    if isinstance(source, str | Path):
        path = Path(source).expanduser()
        return str(path.resolve()) if path.exists() or isinstance(source, Path) else source
    return source
