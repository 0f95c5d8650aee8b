"""Format strings over a record's fields: ``{sentence}``, ``{fields.options[0]}``."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

from peml.tasks.values import Cell, NoText, number_of, text_of

WIDEST = 10_000
"""Characters that a field may be padded to."""

_PARTS = re.compile(r"[^.\[\]]+")


class MissingField(LookupError):
    """A field that a record does not have; ``field`` names it, ``present`` what is there."""

    def __init__(self, field: str, present: Sequence[str]) -> None:
        super().__init__(field)
        self.field = field
        self.present = tuple(present)

    def __str__(self) -> str:
        return f"no field {self.field!r} (there: {', '.join(self.present) or 'none'})"


def lookup(record: Mapping[str, Any], path: str) -> Any:
    """Return the value at a path such as ``label`` or ``fields.options[0]``.

    Only mappings and sequences are entered, never attributes of objects.

    Raises:
        MissingField: The record has no such field, or it is empty (None).
    """
    if path in record and record[path] is not None:
        return record[path]
    value: Any = record
    for part in _PARTS.findall(path):
        inner: Any = None
        if isinstance(value, Mapping):
            inner = value.get(part)
        elif isinstance(value, Sequence) and not isinstance(value, str) and part.isdigit():
            inner = value[int(part)] if int(part) < len(value) else None
        if inner is None:
            raise MissingField(path, _present(value))
        value = inner
    return value


def render(template: str, record: Mapping[str, Any]) -> str:
    """Fill a format string from a record.

    Raises:
        MissingField: The record lacks a field of the template.
        NoText: A field holds what has no text.
        ValueError: The template is malformed.
    """
    return _Formatter().vformat(template, (), record)


def check_template(template: str) -> None:
    """Raise ValueError with the reason if a format string is malformed or numbers its fields.

    One that pads a field to more than `WIDEST` characters is refused: it may come with an adapter.
    """
    for _, name, spec, _ in string.Formatter().parse(template):
        if name is not None and not re.match(r"[^\W\d]", name):
            raise ValueError(f"field {name!r} has no name")
        if any(
            len(n) > len(str(WIDEST)) or int(n) > WIDEST for n in re.findall(r"\d+", spec or "")
        ):
            raise ValueError(f"field {name!r} is wider than {WIDEST:,} characters")


def fields_of(template: str) -> list[str]:
    """Return the fields that a format string fills in, each once."""
    named = (name for _, name, _, _ in string.Formatter().parse(template) if name)
    return list(dict.fromkeys(named))


class _Formatter(string.Formatter):
    def get_field(
        self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[Any, str]:
        value = lookup(kwargs, field_name)
        try:
            text_of(value)
        except NoText as error:
            raise NoText(f"field {field_name!r} {error}") from None
        return value, field_name

    def format_field(self, value: Any, format_spec: str) -> str:
        if not format_spec:
            return text_of(value)
        if isinstance(value, Cell) and format_spec[-1] in _OF_NUMBERS:
            value = _number(value)
        return format(value, format_spec)


_OF_NUMBERS = "bcdeEfFgGnoxX%"


def _number(cell: Cell) -> Any:
    """Return a cell as the number that a format asks for; the cell where it is none."""
    number = number_of(cell)
    if number is None:
        return cell
    return int(cell) if cell.strip().lstrip("+-").isdecimal() else number


def _present(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [str(key) for key, inner in value.items() if inner is not None]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [str(index) for index in range(len(value))]
    return []
