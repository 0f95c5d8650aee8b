"""Results beside the records that they are of: JSONL, CSV or Parquet, whole or not at all."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

from peml.tasks.files import PARQUET, Record, Records, read_table
from peml.tasks.values import NoText, Written, text_of
from prefixnas.base.errors import UserError, first_line, unknown
from prefixnas.base.files import csv_text, write_bytes

Columns = Mapping[str, Sequence[Any]]


class Results:
    """Where results go; what can't be written is refused before there are any.

    Args:
        out: The file, whose name says the format; None: JSONL to `print`.
        records: What the results are of; all their columns are kept.
        columns: Names of the columns to come.
        source: The file that holds the records, if they are one file's: a Parquet file's columns
            keep their types in another, and it is never written over.

    Raises:
        UserError: An unknown format, a folder that is not there, a column that is there already,
            or values that the format can't hold.
    """

    def __init__(
        self,
        out: Path | None,
        records: Records,
        columns: Sequence[str],
        source: Path | None = None,
    ) -> None:
        self.out, self.records, self.source = out, records, source
        if out is not None:
            check_place(out, source)
        self._encode = _FORMATS[JSONL if out is None else out.suffix.lower()]
        taken = {name for row in records.rows for name in row}
        for name in columns:
            if name in taken:
                raise UserError(
                    f"{records.origin}: the column {name!r} is there already, and the results "
                    "need the name; call it otherwise"
                )
        self._encode(records, {}, source)

    def rows(self, columns: Columns) -> list[dict[str, Any]]:
        """Return the records with further columns as JSON holds them, a value for each record.

        Raises:
            UserError: A field that JSON has no value for.
        """
        return [json.loads(line) for line in _jsonl(self.records, columns, None).splitlines()]

    def write(self, columns: Columns) -> None:
        """Write the records with further columns, a value for each record.

        Raises:
            UserError: The file can't be written; one that was there stays as it was.
        """
        data = self._encode(self.records, columns, self.source)
        if self.out is None:
            print(data.decode(), end="")
        else:
            write_bytes(self.out, data)


def check_place(out: Path, source: Path | None = None) -> None:
    """Refuse a file for results that can't be written.

    Args:
        out: The file; one that is there is replaced in the end.
        source: The file that is read.

    Raises:
        UserError: Says why: its format, its folder, or that it is the file that is read.
    """
    if out.suffix.lower() not in _FORMATS:
        raise unknown("file format", out.suffix, _FORMATS, str(out))
    if out.is_dir():
        raise UserError(f"{out}: is a folder; name a file for the results")
    if not out.parent.is_dir():
        raise UserError(f"{out}: there is no folder {str(out.parent)!r}")
    if not os.access(out.parent, os.W_OK):
        raise UserError(f"{out}: can't write in the folder {str(out.parent)!r}")
    if source is not None and out.resolve() == source.resolve():
        raise UserError(f"{out}: is the file that is read; name another for the results")


def _rows(records: Records, columns: Columns) -> list[dict[str, Any]]:
    return [
        {**row, **{name: values[index] for name, values in columns.items()}}
        for index, row in enumerate(records.rows)
    ]


def _jsonl(records: Records, columns: Columns, source: Path | None) -> bytes:
    return "".join(
        _text(records, index, _without_nan(row)) + "\n"
        for index, row in enumerate(_rows(records, columns))
    ).encode()


def _csv(records: Records, columns: Columns, source: Path | None) -> bytes:
    rows = _rows(records, columns)
    names = list(dict.fromkeys(name for row in rows for name in row))
    texts = [
        {
            name: _text(records, index, plain)
            for name, value in row.items()
            if (plain := _without_nan(value)) is not None
        }
        for index, row in enumerate(rows)
    ]
    return csv_text(names, texts).encode()


def _parquet(records: Records, columns: Columns, source: Path | None) -> bytes:
    try:
        if source is not None and source.suffix.lower() == PARQUET:
            table = read_table(source)
        else:
            table = pyarrow.Table.from_pylist(_plain(_in_all(records.rows)))
        for name, values in columns.items():
            table = table.append_column(name, _column(values))
        written = io.BytesIO()
        parquet.write_table(table, written)
    except (pyarrow.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f"{records.origin}: can't be written as Parquet ({first_line(error)}); "
            f"name an --out that ends with {JSONL}"
        ) from error
    return written.getvalue()


def _column(values: Sequence[Any]) -> pyarrow.Array:
    """Return results as a column: of maps, or of texts if they are of several types.

    A struct would have a field for each key of any of the rows.
    """
    there = [value for value in values if value is not None]
    if there and all(isinstance(value, Mapping) for value in there):
        return pyarrow.array(list(values), pyarrow.map_(pyarrow.string(), pyarrow.float64()))
    try:
        return pyarrow.array(list(values))
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError):
        return pyarrow.array([None if value is None else text_of(value) for value in values])


def _text(records: Records, index: int, value: Any) -> str:
    try:
        return text_of(value)
    except NoText as error:
        raise UserError(
            f"{records.where(index)}: a field {error}; name an --out that ends with {PARQUET}"
        ) from None


def _without_nan(value: Any) -> Any:
    """Return a value with None for the floats that JSON has no number for."""
    if isinstance(value, Mapping):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    if isinstance(value, float) and not isfinite(value):
        return None
    return value


def _in_all(rows: Sequence[Record]) -> list[dict[str, Any]]:
    """Return rows that have all columns: pyarrow takes them from the first row alone."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in names} for row in rows]


def _plain(value: Any) -> Any:
    """Return a value as Python's own types, which pyarrow knows."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, Written):
        return float(value)
    return str(value) if isinstance(value, str) else value


JSONL = ".jsonl"
_FORMATS: Mapping[str, Callable[[Records, Columns, Path | None], bytes]] = {
    JSONL: _jsonl,
    ".csv": _csv,
    PARQUET: _parquet,
}
