"""Where a task's records come from: files, hub datasets, the embedded suite."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

from peml.tasks.files import FORMATS, Records, read_files, table_records
from peml.tasks.spec import SPLITS, TaskSpec
from prefixnas.base.errors import UserError, brief, first_line, unknown
from prefixnas.base.extras import require

EMBEDDED_COUNTS = {"train": 1000, "validation": 300}


def each_source(sources: Any, *also: type) -> list[Any]:
    """Return sources of tasks as a list; a single one may stand alone.

    Args:
        sources: What a caller gave.
        also: Types that may stand in the place of a source.

    Raises:
        UserError: Something among them is no source.
    """
    kinds = (str, PathLike, Mapping, *also)
    if isinstance(sources, kinds):
        return [sources]
    given = list(sources) if isinstance(sources, Iterable) else [sources]
    for source in given:
        if not isinstance(source, kinds):
            raise UserError(
                f"tasks: expected a path, a name or the keys of a task file, not {brief(source)}"
            )
    return given


def is_embedded(source: object) -> bool:
    """Tell whether a source names the embedded suite or one of its tasks."""
    return isinstance(source, str) and source.partition(":")[0] == "embedded"


def embedded_tasks() -> tuple[str, ...]:
    """Return the sources of all tasks of the embedded suite."""
    from peml.embedded import suite

    return tuple(f"embedded:{name}" for name in suite.TASKS)


def whole_sources(sources: Sequence[str]) -> list[str]:
    """Return where each task comes from, one source a task, usable from any folder."""
    found: list[str] = []
    for source in sources:
        if source == "embedded":
            found += embedded_tasks()
        else:
            path = Path(source).expanduser()
            found.append(str(path.resolve()) if path.exists() else source)
    return found


def is_one_file(spec: TaskSpec) -> bool:
    """Tell whether a task's source is a single file, of all splits."""
    source = spec.source
    if not isinstance(source, str) or is_embedded(source):
        return False
    return (spec.folder / Path(source).expanduser()).is_file()


def _check_revision(spec: TaskSpec) -> None:
    source = spec.source
    on_hub = isinstance(source, str) and not is_embedded(source)
    if spec.revision is not None and not (on_hub and not (spec.folder / str(source)).exists()):
        raise UserError(f"{spec.where('revision')}: is for datasets of the hub, not for files here")


def read_records(spec: TaskSpec, *, seed: int = 0) -> dict[str, Records]:
    """Read the splits that a task's source has.

    Args:
        spec: The task's specification; ``spec.source`` says where to look.
        seed: Seed of the embedded suite's generator.

    Returns:
        Records of ``train``, ``validation`` and, where the source has them, ``selection`` and
        ``test``; of ``train`` alone where the source is one file.

    Raises:
        UserError: A file, dataset or split is missing or cannot be read.
    """
    _check_revision(spec)
    source = spec.source
    if isinstance(source, dict):
        return {
            split: read_files([spec.folder / Path(name).expanduser() for name in names])
            for split, names in source.items()
        }
    if source is None:
        return _read_folder(spec, spec.folder)
    if is_embedded(source):
        return _read_embedded(source, seed)
    path = spec.folder / Path(source).expanduser()
    if path.is_dir():
        return _read_folder(spec, path)
    if path.is_file():
        if spec.splits:
            raise UserError(
                f"{spec.where('splits')}: {source!r} is one file, which is split by a fixed seed"
            )
        return {"train": read_files([path])}
    looks_local = source.startswith((".", "/", "~")) or path.suffix in FORMATS
    if looks_local or source.count("/") > 1:
        raise UserError(f"{spec.where('source')}: no file or folder {str(path)!r}")
    return _read_hub(spec, source)


def _reason(error: BaseException) -> str:
    """Return the first line of what went wrong at the root of a chain of exceptions."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)


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
        if split in spec.splits or split in ("train", "validation")
    }
    require("datasets", f"{spec.where('source')}: the hub dataset {source!r}")
    found: dict[str, Records] = {}
    for split, name in wanted.items():
        try:
            with _quiet() as datasets:
                revision = {} if spec.revision is None else {"revision": spec.revision}
                dataset = datasets.load_dataset(source, spec.config, split=name, **revision)
                classes = {
                    key: tuple(feature.names)
                    for key, feature in dataset.features.items()
                    if isinstance(feature, datasets.ClassLabel)
                }
                rows = table_records(dataset.with_format("arrow")[:])
        except Exception as error:
            raise UserError(
                f"{spec.where('source')}: cannot load split {name!r} of the hub dataset "
                f"{source!r}: {_reason(error)}"
            ) from error
        found[split] = Records(rows, f"{source}, split {name!r}", classes)
    return found


@contextmanager
def _quiet() -> Iterator[Any]:
    """Import ``datasets`` and keep its progress bars, and the hub's retries, off the terminal."""
    import datasets

    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    retries = logging.getLogger("huggingface_hub")
    level = retries.level
    retries.setLevel(logging.ERROR)
    try:
        yield datasets
    finally:
        retries.setLevel(level)
        if shown:
            datasets.enable_progress_bars()
