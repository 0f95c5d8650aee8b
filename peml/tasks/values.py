"""The values that a record holds, and what they are as text and as numbers.

| in the file | in the record | as text |
|---|---|---|
| a text | `str` | itself |
| a cell of CSV or TSV | `Cell` | itself |
| a whole number | `int` | its digits |
| another number of JSON, a decimal or float of Parquet | `Written` | as written |
| a boolean | `bool` | `true` or `false` |
| a list, an object | `list`, `dict` | as JSON |
| NaN, bytes | `float`, `bytes` | refused where they are used |
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from math import isfinite
from typing import Any

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_PLAIN = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_MOST_DIGITS = 40


class Cell(str):
    """A cell of a file without types: a text, and a number where a number is asked for."""

    __slots__ = ()


class Written(float):
    """A number that remembers how it was written: ``1.50``, ``1e-1``."""

    text: str

    def __new__(cls, text: str) -> Written:
        """Read the number that a text writes."""
        number = super().__new__(cls, text)
        number.text = text
        return number

    def __repr__(self) -> str:
        return self.text

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(float(self), spec) if spec else self.text

    def __reduce__(self) -> tuple[type[Written], tuple[str]]:
        return Written, (self.text,)


class NoText(ValueError):
    """A value that has no text; the message says what it is."""


def text_of(value: Any) -> str:
    """Return a value's text, byte for byte as the file has it where it has text.

    Raises:
        NoText: NaN, infinity or bytes.
    """
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bytes):
        raise NoText("holds bytes, not text")
    if isinstance(value, float) and not isinstance(value, Written) and not isfinite(value):
        raise NoText(f"is {value}, which stands for no value")
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_quoted(k)}: {_quoted(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_quoted, value)) + "]"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return str(value)


def _quoted(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else text_of(value)


def number_of(value: Any) -> float | None:
    """Return the finite number that a value is, or that a cell writes; None for anything else."""
    if isinstance(value, Cell):
        value = float(value) if writes_number(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if isfinite(number) else None


def looks_like_number(value: Any) -> bool:
    """Tell whether a value is a number, or a cell that could be nothing else.

    A cell such as ``007`` is a code: a number in no need of its zeros is not written so.
    """
    return number_of(value) is not None and (
        not isinstance(value, Cell) or is_number_text(value.strip())
    )


def is_number_text(text: str) -> bool:
    """Tell whether a text is a number in its usual form, without needless zeros or a plus."""
    return _PLAIN.fullmatch(text) is not None


def number_text(value: Any) -> str:
    """Return a number's digits, all that the data has, without an exponent where that is short."""
    text = text_of(value).strip().removeprefix("+")
    if "e" in text.lower():
        digits = format(Decimal(text), "f")
        return digits if len(digits) <= _MOST_DIGITS else text
    return text


def writes_number(text: str) -> bool:
    """Tell whether a text can be read as a number: ``5``, ``05``, ``+5.0``."""
    return _NUMBER.fullmatch(text.strip()) is not None


def same_number(text: str, value: Any) -> bool:
    """Tell whether a text writes the number that a value is."""
    return writes_number(text) and Decimal(text.strip()) == Decimal(text_of(value))
