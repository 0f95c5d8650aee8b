"""What a table's file may say."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peml.tables.variables import expanded
from prefixnas.base.errors import UserError, brief, unknown
from prefixnas.base.options import Options, make, option, resolve
from prefixnas.base.yaml import read_yaml

FILES = ("runs.csv", "table.csv", "table.md", "table.png", "table.tex", "table.yaml")
"""What lies beside the folders of the rows."""

LONGEST = 200
"""Bytes of a folder's name; file systems take 255, and temporary names are longer."""

AVERAGE = "average"
"""The column of the paper's numbers that stands beside the average of a table's own."""


@dataclass(frozen=True)
class Paper(Options):
    """Numbers that a paper gives, which nothing here was measured for."""

    model: str = option("", "whose numbers they are")
    columns: list[str] = option([], "what they are of, in the order of the numbers")
    rows: dict[str, list[float | str | None]] = option({}, "a number a column, by row")


@dataclass(frozen=True)
class TableFile(Options):
    """A table: its rows, and what they have in common."""

    title: str = option("", "what the table is about")
    rows: dict[str, dict[str, Any] | None] = option({}, "the keys of a run, by the row's label")
    tasks: list[str] = option([], "as for a run; they are the columns, in this order")
    common: dict[str, Any] = option({}, "keys of all rows; a row's own win")
    metrics: str | dict[str, str] = option({}, "one metric for all tasks, or by task; none: theirs")
    seeds: list[int] = option([0, 1, 2], "every row is trained with each", at_least=0, below=2**32)
    rates: list[float] = option(
        [0.5, 1.0, 2.0],
        "factors of a row's own learning rates to try",
        above=0,
        at_most=1e6,
    )
    trial_seed: int = option(100, "of the runs that try them", at_least=0, below=2**32)
    trial_steps: int | None = option(None, "of those runs; none: as all others", at_least=1)
    against: list[str] = option([], "rows that the others are compared with, by seed")
    paper: dict[str, Any] = option({}, "a paper's own numbers: model, columns, rows")
    left_out: dict[str, str] = option({}, "rows that can't be run, with the reason")


def read_table(path: Path) -> TableFile:
    """Read a table's file; variables in tasks, common keys and rows are replaced.

    Raises:
        UserError: Missing, not YAML, an unknown key, a value of another type or beyond its limits,
            no rows, no tasks, two rows or seeds that are one, or a row that does not exist.
    """
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise UserError(f"{path}: a table is a mapping of keys to values")
    data = {
        str(key): expanded(value, f"{path}: key {str(key)!r}")
        if key in ("tasks", "common", "rows", "metrics")
        else value
        for key, value in data.items()
    }
    values = resolve({"table": TableFile}, [(str(path), data)])
    try:
        file: TableFile = make(TableFile, values)
        _check(file)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return file


def paper_of(file: TableFile) -> Paper:
    """Return the paper's numbers.

    Raises:
        UserError: An unknown key, or a row that does not exist or has too many or few numbers.
    """
    paper: Paper = make(Paper, resolve({"paper": Paper}, [("key 'paper'", file.paper)]))
    known = {*file.rows, *file.left_out}
    for label, numbers in paper.rows.items():
        if label not in known:
            raise unknown("row", label, known, "key 'paper'")
        if len(numbers) != len(paper.columns):
            raise UserError(
                f"key 'paper': row {label!r} has {len(numbers)} numbers for "
                f"{len(paper.columns)} columns"
            )
    return paper


def folder_of(label: str) -> str:
    """Return the name of a row's folder; labels that look alike have one."""
    label = unicodedata.normalize("NFC", label)
    return re.sub(r"[^\w.+=-]+", "-", label).strip("-.") or "row"


def _check(file: TableFile) -> None:
    for key in ("rows", "tasks", "seeds", "rates", "against"):
        items = [f"{item:g}" if key == "rates" else item for item in getattr(file, key)]
        if not items and key != "against":
            raise UserError(f"key {key!r}: name at least one")
        if len(set(items)) < len(items):
            raise UserError(f"key {key!r}: one is named twice: {', '.join(map(str, items))}")
    if file.trial_seed in file.seeds:
        raise UserError(f"key 'trial_seed': {file.trial_seed} is one of the seeds; take another")
    _check_labels(file.rows)
    for label in file.against:
        if label not in file.rows:
            raise unknown("row", label, file.rows, "key 'against'")
    if both := {*file.rows} & {*file.left_out}:
        raise UserError(f"key 'left_out': {sorted(both)[0]!r} is a row of the table")
    paper_of(file)


def _check_labels(rows: Mapping[str, object]) -> None:
    folders: dict[str, str] = {}
    for label in rows:
        folder = folder_of(label)
        other = folders.setdefault(folder.lower(), label)
        if not label.strip() or len(label.splitlines()) > 1:
            raise UserError(f"key 'rows': a label is a line of text, not {label!r}")
        if other != label:
            raise UserError(f"rows {other!r} and {label!r} would share a folder; rename one")
        if folder.lower() in FILES:
            raise UserError(f"row {label!r}: its folder would take the place of the table's file")
        if len(folder.encode()) > LONGEST:
            raise UserError(f"row {brief(label)}: a label may have {LONGEST} bytes")
