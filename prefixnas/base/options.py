"""Options: fields of dataclasses, checked by type and limits wherever they come from.

Those of a run, of its objective and of its strategy share one flat set of keys, so that a YAML file
and the command line say the same things: defaults, then a file, then flags.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import operator
import typing
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import field
from typing import Any, Literal, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from prefixnas.base.errors import UserError, brief, unknown

MOST, LEAST = 10**9, 1e-12
"""Limits of every number that has none of its own: of its size, and of one that is above 0."""


def option(
    default: Any,
    text: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    former: str | None = None,
) -> Any:
    """Return a dataclass field with a default, a help text for the command line, and limits.

    A number without an upper or a lower limit is held between `MOST` and its negative; one that is
    above 0 is at least `LEAST`. `former` is a name that the key had once, which files and flags may
    use still.
    """
    limits = {"at least": at_least, "above": above, "at most": at_most, "below": below}
    metadata: dict[str, Any] = {"help": text, "former": former}
    metadata["limits"] = {k: v for k, v in limits.items() if v is not None}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


_WITHIN: Mapping[str, Callable[[float, float], bool]] = {
    "at least": operator.ge,
    "at most": operator.le,
    "above": operator.gt,
    "below": operator.lt,
}


class Options:
    """Base of dataclasses of options: one that its type or its limits forbid cannot be made.

    Raises:
        UserError: Names the first key that is wrong, and what is allowed.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Walk(Options):
        ...     steps: int = option(3, "how far to go", at_least=1)
        >>> Walk(steps=0)
        Traceback (most recent call last):
        prefixnas.base.errors.UserError: key 'steps': must be at least 1, not 0
    """

    def __post_init__(self) -> None:
        cls: Any = type(self)
        kinds = types_of({"": cls})
        for entry in dataclasses.fields(cls):
            value, where = getattr(self, entry.name), f"key {entry.name!r}"
            _validated(value, kinds[entry.name], where)
            _check_limits(value, entry.metadata.get("limits", {}), where)


def _check_limits(value: Any, own: Mapping[str, float], where: str) -> None:
    numbers = value if isinstance(value, list) else [value]
    if own and isinstance(value, dict):
        numbers = [*value.values()]
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int | float):
            continue
        if not all(_WITHIN[kind](number, limit) for kind, limit in own.items()):
            allowed = " and ".join(f"{kind} {limit}" for kind, limit in own.items())
            raise UserError(f"{where}: must be {allowed}, not {brief(number)}")
        for kind, limit in common_limits(own).items():
            if not _WITHIN[kind](number, limit):
                raise UserError(f"{where}: must be {kind} {limit:,}, not {brief(number)}")


def common_limits(own: Mapping[str, float]) -> dict[str, float]:
    """Return the limits of every number that its own leave open."""
    limits: dict[str, float] = {}
    if not {"at most", "below"} & set(own):
        limits["at most"] = MOST
    if not {"at least", "above"} & set(own):
        limits["at least"] = -MOST
    if own.get("above") == 0:
        limits["at least"] = LEAST
    return limits


def read_pairs(items: Sequence[str], where: str, form: str = "NAME=VALUE") -> dict[str, str]:
    """Read `["layers=2", "train=200"]` as a mapping.

    Raises:
        UserError: An item is no pair, or a name comes twice.
    """
    pairs: dict[str, str] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not (name and equals and value):
            raise UserError(f"{where}: expected {form}, not {brief(item)}")
        if name in pairs:
            raise UserError(f"{where}: {name!r} is given twice")
        pairs[name] = value
    return pairs


FLAG = "flag"
"""Where values come from that were typed as flags, and so are texts."""

Sections = Mapping[str, type[Any]]
"""The dataclasses of a run by what they are for: "run", "objective", "strategy"."""


def fields_of(options: Sections) -> dict[str, dataclasses.Field[Any]]:
    """Return all keys with their fields.

    Raises:
        UserError: Two dataclasses have a key of the same name.
    """
    found: dict[str, dataclasses.Field[Any]] = {}
    owner: dict[str, str] = {}
    for part, cls in options.items():
        for entry in _own_first(cls):
            if entry.name in found:
                raise UserError(
                    f"the key {entry.name!r} of the {part} ({cls.__name__}) is a key of the "
                    f"{owner[entry.name]} already; its author must rename it"
                )
            found[entry.name], owner[entry.name] = entry, part
    return found


def _own_first(cls: type[Any]) -> list[dataclasses.Field[Any]]:
    """Return a dataclass's fields, those of its bases behind its own."""
    depth: dict[str, int] = {}
    for level, base in enumerate(cls.__mro__):
        for name in inspect.get_annotations(base):
            depth.setdefault(name, level)
    return sorted(dataclasses.fields(cls), key=lambda entry: depth[entry.name])


def renamed(
    layer: Mapping[str, Any], known: Mapping[str, dataclasses.Field[Any]], where: str
) -> dict[str, Any]:
    """Return a layer of values in which keys have the names of today.

    Raises:
        UserError: A key is given by its former name and by its name.
    """
    former = {entry.metadata.get("former"): name for name, entry in known.items()}
    values: dict[str, Any] = {}
    for key, value in layer.items():
        name = former.get(key, key) if key not in known else key
        if name != key and name in layer:
            raise UserError(f"{where}: key {key!r} is called {name!r} now; leave one of them out")
        values[name] = value
    return values


def types_of(options: Sections) -> dict[str, Any]:
    """Return every key's type."""
    return {
        name: kind
        for cls in options.values()
        for name, kind in typing.get_type_hints(cls).items()
        if name in {entry.name for entry in dataclasses.fields(cls)}
    }


def default_of(entry: dataclasses.Field[Any]) -> Any:
    """Return a field's default."""
    if entry.default_factory is not dataclasses.MISSING:
        return entry.default_factory()
    return entry.default


def resolve(options: Sections, layers: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Merge layers of values over the defaults and check them; later layers win.

    Args:
        options: The dataclasses.
        layers: Pairs of where the values come from (`FLAG`, a file) and the values.

    Raises:
        UserError: Unknown key, or a value that its type or its limits do not allow.
    """
    known, kinds = fields_of(options), types_of(options)
    values = {name: default_of(entry) for name, entry in known.items()}
    for where, layer in layers:
        for name, value in renamed(layer, known, where).items():
            if name not in known:
                raise unknown("key", name, known, where)
            place = f"{where}: key {name!r}"
            if where == FLAG:
                place = "--" + name.replace("_", "-")
                if value in ("none", ["none"]) and type(None) in get_args(kinds[name]):
                    value = None
            values[name] = _convert(value, kinds[name], place)
            limited = f"key {name!r}" if where == FLAG else place
            _check_limits(values[name], known[name].metadata.get("limits", {}), limited)
    return values


def make(cls: type[Any], values: Mapping[str, Any]) -> Any:
    """Build one of the dataclasses from the resolved values.

    Raises:
        UserError: A value outside its limits.
    """
    names = {entry.name for entry in dataclasses.fields(cls)}
    return cls(**{name: value for name, value in values.items() if name in names})


def _convert(value: Any, kind: Any, where: str) -> Any:
    if isinstance(value, str):
        value = _number(value, kind)
    if is_list(kind) and isinstance(value, str):
        value = [value]
    return _validated(value, kind, where)


def _validated(value: Any, kind: Any, where: str) -> Any:
    allowed = literals(kind)
    if allowed and isinstance(value, bool):
        value = next((word for word in BOOLEANS[value] if word in allowed), value)
    if allowed and value not in allowed:
        raise unknown("value", value, [str(item) for item in allowed if item is not None], where)
    try:
        # Strict, so that 2.5 steps, a rank of true or a model of 3 are mistakes.
        converted = _adapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(
            f"{where}: must be {_wanted(first)}, not {brief(first['input'])}"
        ) from error
    if isinstance(converted, float) and not math.isfinite(converted):
        raise UserError(f"{where}: must be a finite number, not {brief(value)}")
    return converted


BOOLEANS = {True: ("yes", "on"), False: ("no", "off")}
"""Words that YAML 1.1 takes for booleans where they stand without quotes."""


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _number(text: str, kind: Any) -> Any:
    """Return the number that a text stands for, where a number is wanted.

    Flags are texts, and so is `1e-3` in YAML, which wants a dot in it.
    """
    allowed = (kind, *get_args(kind))
    for number in (int, float):
        if number in allowed:
            with suppress(ValueError):
                return number(text)
    return {str(item): item for item in literals(kind)}.get(text, text)


def _wanted(error: Any) -> str:
    names = {
        "int": "a whole number",
        "float": "a number",
        "bool": "true or false",
        "string": "a text",
        "list": "a list",
        "dict": "a mapping of keys to values",
    }
    kind = error["type"].partition("_")[0]
    if kind == "literal":
        return f"one of {error['ctx']['expected']}"
    return names.get(kind) or str(error["msg"])


def literals(kind: Any) -> tuple[Any, ...]:
    """Return the allowed values of a `Literal` type, None among them if it is optional."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    parts = get_args(kind)
    if type(None) in parts and any(get_origin(part) is Literal for part in parts):
        return (*(item for part in parts for item in get_args(part)), None)
    return ()


def is_list(kind: Any) -> bool:
    """Tell whether a type is a list, or an optional one."""
    return get_origin(kind) is list or any(get_origin(part) is list for part in get_args(kind))
