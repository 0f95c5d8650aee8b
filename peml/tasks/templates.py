"""Templates over a record's fields: format strings and Jinja2.

A format string has fields in single braces: ``{sentence}``, ``{fields.options[0]}``. A text with
``{{ }}`` or ``{% %}`` and without such a field is a template of Jinja2.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

from peml.tasks.fields import lookup
from peml.tasks.jinja import jinja_template
from peml.tasks.values import Cell, NoText, number_of, text_of

WIDEST = 10_000
"""Characters that a field may be padded to."""
_NAMED = re.compile(r"[^\W\d]")
"""How the name of a field begins."""


def render(template: str, record: Mapping[str, Any]) -> str:
    """Fill a template from a record.

    Raises:
        MissingField: The record lacks a field of the template.
        NoText: A field holds what has no text.
        ValueError: The template is malformed.
    """
    if is_jinja(template):
        return jinja_template(template).render(record)
    return _Formatter().vformat(template, (), record)


def check_template(template: str) -> None:
    """Raise ValueError with the reason if a template is malformed, or numbers its fields.

    One that pads a field to more than `WIDEST` characters is refused: it may come with an adapter.
    """
    if is_jinja(template):
        jinja_template(template)
        return
    for _, name, spec, _ in string.Formatter().parse(template):
        if name is not None and not _NAMED.match(name):
            raise ValueError(f"field {name!r} has no name")
        if "{" in (spec or ""):
            raise ValueError(f"field {name!r} takes its format from another field")
        if any(
            len(n) > len(str(WIDEST)) or int(n) > WIDEST for n in re.findall(r"\d+", spec or "")
        ):
            raise ValueError(f"field {name!r} is wider than {WIDEST:,} characters")


def fields_of(template: str) -> list[str]:
    """Return the fields that a template fills in, each once."""
    if is_jinja(template):
        return list(jinja_template(template).fields)
    named = (name for _, name, _, _ in string.Formatter().parse(template) if name)
    return list(dict.fromkeys(named))


def is_jinja(template: str) -> bool:
    """Tell whether a template is one of Jinja2."""
    if "{{" not in template and "{%" not in template:
        return False
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(template) if name]
    except ValueError:
        return True
    return not any(_NAMED.match(name) for name in names)


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
