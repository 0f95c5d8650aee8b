"""How a file is read: every record as the file has it, nothing guessed.

JSON keeps its types. Cells of CSV and TSV are texts. Parquet is as typed. A record that can't be
read is named by its file and line.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peml.tasks.values import Cell, Written
from prefixnas.base.errors import UserError, first_line, nearest, unknown
from prefixnas.base.files import parse_json

if TYPE_CHECKING:
    import pyarrow

Record = Mapping[str, Any]
Numbered = tuple[int, Record]


@dataclass(frozen=True)
class Records:
    """The records of one split.

    Attributes:
        rows: One mapping per record.
        origin: The files, or the hub dataset and split, for messages.
        class_names: Names of the labels by field, where the data set declares them.
        places: File and line of each record; empty where records have no lines.
    """

    rows: Sequence[Record]
    origin: str
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    places: Sequence[tuple[str, int]] = ()

    def where(self, index: int) -> str:
        """Return ``train.jsonl, line 3`` as the start of a message about a record."""
        file, number = self.places[index] if self.places else (self.origin, index + 1)
        unit = "line" if file.endswith(WITH_LINES) or file == STDIN else "record"
        return f"{file}, {unit} {number}"


def read_files(paths: Sequence[Path]) -> Records:
    """Read JSONL, JSON, CSV, TSV or Parquet files of one split, in order.

    Raises:
        UserError: A file is missing, of an unknown format or encoding, or malformed.
    """
    rows: list[Record] = []
    places: list[tuple[str, int]] = []
    classes: dict[str, tuple[str, ...]] = {}
    for path in paths:
        found, declared = _read_file(path)
        for name, names in declared.items():
            if classes.setdefault(name, names) != names:
                raise UserError(f"{path}: the labels of {name!r} have other names than before")
        for number, record in found:
            rows.append(record)
            places.append((str(path), number))
    return Records(rows, " + ".join(map(str, paths)), classes, places)


def read_lines(text: str) -> Records:
    """Read JSON lines that came in by standard input.

    Raises:
        UserError: They are malformed.
    """
    found = list(_json_lines(text, Path(STDIN)))
    return Records([row for _, row in found], STDIN, {}, [(STDIN, number) for number, _ in found])


def _read_file(path: Path) -> tuple[Iterable[Numbered], dict[str, tuple[str, ...]]]:
    if not path.is_file():
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(f"no file {str(path)!r}{nearest(path.name, siblings)}")
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise unknown("file format", path.suffix, FORMATS, str(path))
    if suffix == PARQUET:
        with _parquet(path):
            table = read_table(path)
            return enumerate(table_records(table), start=1), table_classes(table)
    return _TEXT_FORMATS[suffix](_decode(path), path), {}


class _Wrong(ValueError):
    """A record that can't be read, or a number or key in it."""


def _decode(path: Path) -> str:
    """Return a file's text, which is UTF-8, with or without a byte order mark."""
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        guess = " (it begins like UTF-16)" if wide else ""
        raise UserError(
            f"{path}, line {line}: byte {data[error.start]:#04x} is not UTF-8{guess}; "
            "save the file as UTF-8"
        ) from None


def _json_lines(text: str, path: Path) -> Iterator[Numbered]:
    # Only "\n" ends a line: str.splitlines would also cut at U+2028, which JSON allows in texts.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip(_BLANK):
            with _named(f"{path}, line {number}"):
                yield number, _json_object(*_json_value(line.strip(_BLANK)))


def _json_document(text: str, path: Path) -> Iterator[Numbered]:
    """Read a list of objects, or lines of them under the name ``.json``."""
    start = _skip(text, 0)
    if text[start : start + 1] != "[":
        try:
            yield from list(_json_lines(text, path))
        except UserError as error:
            raise UserError(
                f"{path}: must be a list of objects, or one object a line ({error})"
            ) from None
        return
    position, closed = _skip(text, start + 1), False
    number, counted = 1, 0
    while not closed:
        number += text.count("\n", counted, position)
        counted = position
        with _named(f"{path}, line {number}"):
            if text[position : position + 1] == "]":
                closed, position = True, position + 1
                continue
            value, end = _DECODER.raw_decode(text, position)
            record = _json_object(value, "")
            _check_texts(record, text[position:end])
            position = _skip(text, end)
            mark = text[position : position + 1]
            if mark not in ("]", ","):
                raise _Wrong("not valid JSON: a ',' or ']' must follow a record")
            if mark == ",":
                position = _skip(text, position + 1)
                if text[position : position + 1] == "]":
                    raise _Wrong("not valid JSON: no record follows the last ','")
        yield number, record
    if text[position:].strip(_BLANK):
        raise UserError(f"{path}: something follows the end of the list")


def _json_value(text: str) -> tuple[Any, str]:
    value, end = _DECODER.raw_decode(text)
    _check_texts(value, text)
    return value, text[end:]


def _json_object(value: Any, rest: str) -> Record:
    if rest.strip(_BLANK):
        raise _Wrong("not valid JSON: something follows the object")
    if not isinstance(value, dict):
        raise _Wrong("must be a JSON object")
    return value


def _check_texts(value: Any, written: str) -> None:
    """Refuse half of a surrogate pair, which is no character."""
    if "\\u" in written:
        try:
            json.dumps(value, ensure_ascii=False, default=str).encode()
        except UnicodeEncodeError:
            raise _Wrong("a text holds half of a surrogate pair, which is no character") from None


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Wrong(f"key {twice!r} occurs twice")
    return record


def _whole(text: str) -> int | Written:
    return Written(text) if text == "-0" else int(text)


_BLANK = " \t\r\n"
_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_float=Written, parse_int=_whole)


def _skip(text: str, position: int) -> int:
    while text[position : position + 1] in (" ", "\t", "\r", "\n"):
        position += 1
    return position


def _csv(text: str, path: Path) -> Iterator[Numbered]:
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    limit = csv.field_size_limit(sys.maxsize)
    number = 1
    rows: list[tuple[int, list[str]]] = []
    try:
        with _named(lambda: f"{path}, line {number}"):
            for cells in lines:
                rows.append((number, cells))
                number = lines.line_num + 1
    finally:
        csv.field_size_limit(limit)
    _check_separated(rows, path, ",")
    return _table(rows, path, "")


def _tsv(text: str, path: Path) -> Iterator[Numbered]:
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    rows = [(n, line.split("\t") if line else []) for n, line in enumerate(lines, start=1)]
    _check_separated(rows, path, "\t")
    return _table(rows, path, " (a tab ends a cell of TSV, in quotes too)")


_SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}


def _check_separated(rows: Sequence[tuple[int, list[str]]], path: Path, mark: str) -> None:
    """Refuse a table whose one column holds several, by another mark than those between cells."""
    filled = [(number, cells) for number, cells in rows if cells][:_SHOW_IT]
    others = [m for m in _SEPARATORS if m != mark and all(m in cells[0] for _, cells in filled)]
    if filled and others and all(len(cells) == 1 for _, cells in filled):
        raise UserError(
            f"{path}, line {filled[0][0]}: its one column is {filled[0][1][0]!r}: between cells "
            f"must stand {_SEPARATORS[mark]}, not {_SEPARATORS[others[0]]}"
        )


_SHOW_IT = 5
"""Lines that show by which mark cells are separated."""


def _table(rows: Iterable[tuple[int, list[str]]], path: Path, hint: str) -> Iterator[Numbered]:
    """Put cells under the names of the first row; empty lines are no records."""
    filled = iter([(number, cells) for number, cells in rows if cells])
    first, names = next(filled, (1, []))
    for name in names:
        if name and names.count(name) > 1:
            raise UserError(f"{path}, line {first}: two columns are named {name!r}")
    for number, cells in filled:
        if len(cells) != len(names):
            raise UserError(
                f"{path}, line {number}: {len(cells)} cells under {len(names)} names{hint}"
            )
        yield number, {n: Cell(cell) for n, cell in zip(names, cells, strict=True) if n}


@contextmanager
def _named(where: str | Callable[[], str]) -> Iterator[None]:
    """Name the place of what is wrong with a record."""
    try:
        yield
    except (ValueError, RecursionError, csv.Error) as error:
        place = where if isinstance(where, str) else where()
        raise UserError(f"{place}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON: {error.msg}"
    if isinstance(error, csv.Error):
        return f"not valid CSV: {error}"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return first_line(error)


def read_table(path: Path) -> pyarrow.Table:
    """Read a Parquet file.

    Raises:
        UserError: It is none.
    """
    from pyarrow import parquet

    with _parquet(path), parquet.ParquetFile(path) as file:
        return file.read()


@contextmanager
def _parquet(path: Path) -> Iterator[None]:
    """Say in one line that a file can't be read, or that it holds values that are none."""
    from pyarrow import ArrowException

    try:
        yield
    except (ArrowException, OSError, ValueError, OverflowError) as error:
        raise UserError(f"{path}: not a Parquet file: {first_line(error)}") from error


def table_records(table: pyarrow.Table) -> list[Record]:
    """Return the rows of an Arrow table, as `peml.tasks.values` lists their values.

    Raises:
        UserError: Two columns have one name.
    """
    for name in table.column_names:
        if table.column_names.count(name) > 1:
            raise UserError(f"two columns are named {name!r}")
    columns = {
        name: [_plain(value, column.type) for value in column.to_pylist()]
        for name, column in zip(table.column_names, table.columns, strict=True)
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def table_classes(table: pyarrow.Table) -> dict[str, tuple[str, ...]]:
    """Return the label names that ``datasets`` notes in a table, by column."""
    noted = (table.schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        features = parse_json(noted)["info"]["features"]
        return {
            name: tuple(map(str, feature["names"]))
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _plain(value: Any, kind: pyarrow.DataType) -> Any:
    """Return a value of an Arrow type as a record holds it."""
    from pyarrow import types

    if value is None or types.is_boolean(kind) or types.is_integer(kind):
        return value
    if types.is_decimal(kind):
        return Written(format(value, "f"))
    if types.is_floating(kind):
        return _float(value, kind.bit_width)
    if types.is_dictionary(kind):
        return _plain(value, kind.value_type)
    if types.is_struct(kind):
        return {entry.name: _plain(value[entry.name], entry.type) for entry in kind}
    if types.is_map(kind):
        return {str(key): _plain(inner, kind.item_type) for key, inner in value}
    if isinstance(value, list):
        return [_plain(inner, kind.value_type) for inner in value]
    return value if isinstance(value, str | bytes | list) else str(value)


def _float(value: float, bits: int) -> float:
    """Return a float with the shortest text that means it at its own width."""
    import numpy

    if value != value or value in (float("inf"), float("-inf")):
        return float(value)
    narrow = {16: numpy.float16, 32: numpy.float32}.get(bits)
    return Written(str(narrow(value)) if narrow else repr(float(value)))


STDIN = "standard input"
PARQUET = ".parquet"
_TEXT_FORMATS: Mapping[str, Callable[[str, Path], Iterator[Numbered]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json_document,
    ".csv": _csv,
    ".tsv": _tsv,
}
FORMATS = (*_TEXT_FORMATS, PARQUET)
"""What a file's name may end with."""
WITH_LINES = tuple(_TEXT_FORMATS)
