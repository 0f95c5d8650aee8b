"""Where a task's records come from: files, hub datasets, the embedded suite."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from peml.tasks.spec import SPLITS, TaskSpec
from prefixnas.base.errors import UserError, nearest, unknown

Record = Mapping[str, Any]
FORMATS = {
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}
EMBEDDED_COUNTS = {"train": 1000, "validation": 300}


@dataclass(frozen=True)
class Records:
    """The records of one split.

    Attributes:
        rows: One mapping per record.
        origin: The file, or the hub dataset and split, for messages.
        class_names: Names of the labels by field, where the data set declares them.
    """

    rows: Sequence[Record]
    origin: str
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def where(self, index: int) -> str:
        """Return ``train.jsonl, line 3`` as the start of a message about a record."""
        unit = "line" if self.origin.endswith((".jsonl", ".ndjson")) else "record"
        return f"{self.origin}, {unit} {index + 1}"


def is_embedded(source: object) -> bool:
    """Tell whether a source names the embedded suite or one of its tasks."""
    return isinstance(source, str) and source.partition(":")[0] == "embedded"


def embedded_tasks() -> tuple[str, ...]:
    """Return the sources of all tasks of the embedded suite."""
    from peml.embedded import suite

    return tuple(f"embedded:{name}" for name in suite.TASKS)


def read_records(spec: TaskSpec, *, seed: int = 0) -> dict[str, Records]:
    """Read the splits that a task's source has.

    Args:
        spec: The task's specification; ``spec.source`` says where to look.
        seed: Seed of the embedded suite's generator.

    Returns:
        Records of ``train``, ``validation`` and, where the source has one, ``selection``.

    Raises:
        UserError: A file, dataset or split is missing or cannot be read.
    """
    source = spec.source
    if isinstance(source, dict):
        return {
            split: read_files([spec.folder / name for name in names])
            for split, names in source.items()
        }
    if source is None:
        return _read_folder(spec, spec.folder)
    if is_embedded(source):
        return _read_embedded(source, seed)
    path = spec.folder / source
    if path.is_dir():
        return _read_folder(spec, path)
    if path.is_file():
        raise UserError(
            f"{spec.where('source')}: {source!r} is one file; name a file for each split: "
            "{train: ..., validation: ...}"
        )
    looks_local = source.startswith((".", "/", "~")) or path.suffix in FORMATS
    if looks_local or source.count("/") > 1:
        raise UserError(f"{spec.where('source')}: no file or folder {str(path)!r}")
    return _read_hub(spec, source)


def read_files(paths: Sequence[Path]) -> Records:
    """Read JSONL, JSON, CSV, TSV or Parquet files of one split, in order.

    Raises:
        UserError: A file is missing, empty, of an unknown format or malformed.
    """
    rows: list[Record] = []
    for path in paths:
        rows.extend(_read_file(path))
    return Records(rows, " + ".join(str(path) for path in paths))


def _read_file(path: Path) -> list[Record]:
    if not path.is_file():
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(f"no file {str(path)!r}{nearest(path.name, siblings)}")
    if path.suffix not in FORMATS:
        raise unknown("file format", path.suffix, FORMATS, str(path))
    if not path.read_bytes().strip():
        return []
    options: dict[str, Any] = {}
    if FORMATS[path.suffix] == "csv":
        # Words such as "None" and "NA" are answers here; an empty cell alone is a missing one.
        options = {"keep_default_na": False, "na_values": [""]}
        if path.suffix == ".tsv":
            options["sep"] = "\t"
    try:
        # A cache of its own, because a shared one would grow with every file ever read.
        with _quiet() as datasets, TemporaryDirectory(ignore_cleanup_errors=True) as cache:
            # Not load_dataset, which reports every local file to the hub and waits for it.
            read = getattr(datasets.Dataset, f"from_{FORMATS[path.suffix]}")
            return list(read(str(path), cache_dir=cache, **options))
    except Exception as error:
        raise UserError(f"{path}{_json_problem(path) or ': ' + _reason(error)}") from error


def _json_problem(path: Path) -> str:
    if path.suffix not in (".jsonl", ".ndjson"):
        return ""
    for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            return f", line {number}: not valid JSON: {error.msg}"
        if not isinstance(record, dict):
            return f", line {number}: must be a JSON object"
    return ""


def _reason(error: BaseException) -> str:
    """Return the first line of what went wrong at the root of a chain of exceptions."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _read_folder(spec: TaskSpec, folder: Path) -> dict[str, Records]:
    found: dict[str, Records] = {}
    for split in SPLITS:
        stem = spec.splits.get(split, split)
        files = [folder / (stem + suffix) for suffix in FORMATS]
        present = [path for path in files if path.is_file()]
        if len(present) > 1:
            names = ", ".join(path.name for path in present)
            raise UserError(f"{folder}: more than one file for the split {split!r}: {names}")
        if present:
            found[split] = read_files(present)
        elif split in spec.splits:
            raise UserError(
                f"{spec.where('splits')}: {folder} has no file {stem!r} "
                f"(formats: {', '.join(FORMATS)})"
            )
    if not found:
        raise UserError(f"{folder}: a task's folder holds train.jsonl and validation.jsonl")
    return found


def _read_embedded(source: str, seed: int) -> dict[str, Records]:
    from peml.embedded import suite

    name = source.partition(":")[2]
    if name not in suite.TASKS:
        raise unknown("embedded task", name, suite.TASKS)
    return {
        split: Records(suite.generate(name, split, count, seed), f"{source}, split {split!r}")
        for split, count in EMBEDDED_COUNTS.items()
    }


def _read_hub(spec: TaskSpec, source: str) -> dict[str, Records]:
    wanted = {
        split: spec.splits.get(split, split)
        for split in SPLITS
        if split in spec.splits or split != "selection"
    }
    found: dict[str, Records] = {}
    for split, name in wanted.items():
        try:
            with _quiet() as datasets:
                dataset = datasets.load_dataset(source, spec.config, split=name)
                classes = {
                    key: tuple(feature.names)
                    for key, feature in dataset.features.items()
                    if isinstance(feature, datasets.ClassLabel)
                }
                rows = list(dataset)
        except Exception as error:
            raise UserError(
                f"{spec.where('source')}: cannot load split {name!r} of the hub dataset "
                f"{source!r}: {_reason(error)}"
            ) from error
        found[split] = Records(rows, f"{source}, split {name!r}", classes)
    return found


@contextmanager
def _quiet() -> Iterator[Any]:
    """Import ``datasets`` and keep its progress bars off the terminal."""
    import datasets

    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield datasets
    finally:
        if shown:
            datasets.enable_progress_bars()
