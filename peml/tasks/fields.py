"""The fields of a record, found by their names and paths."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prefixnas.base.errors import nearest

_PARTS = re.compile(r"[^.\[\]]+")


class MissingField(LookupError):
    """A field that a record does not have; ``field`` names it, ``present`` what is there."""

    def __init__(self, field: str, present: Sequence[str]) -> None:
        super().__init__(field)
        self.field = field
        self.present = tuple(present)

    def __str__(self) -> str:
        close = nearest(self.field, self.present)
        return f"no field {self.field!r}{close} (there: {listed(self.present)})"


def listed(names: Iterable[str]) -> str:
    """Return the names of fields for a message, in quotes where blanks are around one."""
    return ", ".join(name if name == name.strip() else repr(name) for name in names) or "none"


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
            raise MissingField(path, present(value))
        value = inner
    return value


def present(value: Any) -> list[str]:
    """Return the fields that a mapping or a sequence has and that are not empty."""
    if isinstance(value, Mapping):
        return [str(key) for key, inner in value.items() if inner is not None]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [str(index) for index in range(len(value))]
    return []
