"""Configuration: defaults, then a YAML file, then flags; every key checked by name and type.

Options are fields of dataclasses: `RunConfig` here, the objective's, the strategy's. They share
one flat set of keys, so that a YAML file and the command line say the same things.
"""

from __future__ import annotations

import dataclasses
import math
import operator
import typing
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import TypeAdapter, ValidationError

from prefixnas.base.errors import UserError, unknown
from prefixnas.base.files import read_yaml


def option(
    default: Any,
    text: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Any:
    """Return a dataclass field with a default, a help text for the command line, and limits."""
    limits = {"at least": at_least, "above": above, "at most": at_most, "below": below}
    metadata = {"help": text, "limits": {k: v for k, v in limits.items() if v is not None}}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


_WITHIN: Mapping[str, Callable[[float, float], bool]] = {
    "at least": operator.ge,
    "at most": operator.le,
    "above": operator.gt,
    "below": operator.lt,
}


def check_limits(options: Any) -> None:
    """Check a dataclass of options against the limits of its fields.

    Raises:
        UserError: Names the first key whose value is outside.
    """
    for entry in dataclasses.fields(options):
        value = getattr(options, entry.name)
        limits = entry.metadata.get("limits", {})
        if value is not None and not all(_WITHIN[k](value, v) for k, v in limits.items()):
            allowed = " and ".join(f"{kind} {limit}" for kind, limit in limits.items())
            raise UserError(f"key {entry.name!r}: must be {allowed}, not {value!r}")


@dataclass(frozen=True)
class RunConfig:
    """What every run has, whatever its strategy and objective."""

    space: str = option("default", "a shipped space or a YAML file")
    strategy: str = option("darts", "how to search")
    objective: str | None = option(None, "the problem; may be left out if only one is installed")
    steps: int = option(
        240, "joint training steps: searching and training on, together", at_least=1
    )
    search_fraction: float = option(
        0.5, "share of the steps that go into searching", at_least=0, below=1
    )
    seed: int = option(0, "seed of everything random", at_least=0, below=2**32)
    set: list[str] = option(
        [], "options of choices, set by hand: activation=tanh (every layer), layer0/activation=relu"
    )
    warmup: int = option(10, "steps in which the learning rate grows from 0", at_least=0)
    decay: float = option(
        0.5, "share of the steps, at the end, in which it falls to 0", at_least=0, at_most=1
    )
    clip: float = option(1.0, "largest norm of the gradient", above=0)
    eval_every: int = option(
        0,
        "steps of an epoch, which ends with a look at the selection split; training keeps the best "
        "weights seen; 0: no epochs, the last are kept",
        at_least=0,
    )
    patience: int = option(
        0, "epochs without a better score before a loop ends; 0: never", at_least=0
    )
    checkpoint_every: int = option(50, "steps between checkpoints", at_least=1)
    processes: int = option(
        1, "processes that train together, one a GPU, each on its share of every batch", at_least=1
    )
    baseline: bool = option(True, "also train without the searched module, at equal steps")
    plugin: list[str] = option([], "modules or .py files that register operations or strategies")

    def __post_init__(self) -> None:
        check_limits(self)

    @property
    def settings(self) -> dict[str, str]:
        """`set` as a mapping from decision to option."""
        pairs = {}
        for item in self.set:
            key, equals, value = item.partition("=")
            if not equals or not key or not value:
                raise UserError(f"key 'set': expected DECISION=OPTION, not {item!r}")
            pairs[key] = value
        return pairs


FLAG = "flag"
"""Where values come from that were typed as flags, and so are texts."""

Options = Mapping[str, type[Any]]
"""The dataclasses of a run by what they are for: "run", "objective", "strategy"."""


def keys(options: Options) -> dict[str, dataclasses.Field[Any]]:
    """Return all keys with their fields.

    Raises:
        UserError: Two dataclasses have a key of the same name.
    """
    found: dict[str, dataclasses.Field[Any]] = {}
    owner: dict[str, str] = {}
    for part, cls in options.items():
        for entry in dataclasses.fields(cls):
            if entry.name in found:
                raise UserError(
                    f"the key {entry.name!r} of the {part} ({cls.__name__}) is a key of the "
                    f"{owner[entry.name]} already; its author must rename it"
                )
            found[entry.name], owner[entry.name] = entry, part
    return found


def types(options: Options) -> dict[str, Any]:
    """Return every key's type."""
    return {
        name: kind
        for cls in options.values()
        for name, kind in typing.get_type_hints(cls).items()
        if name in {entry.name for entry in dataclasses.fields(cls)}
    }


def default(entry: dataclasses.Field[Any]) -> Any:
    """Return a field's default."""
    if entry.default_factory is not dataclasses.MISSING:
        return entry.default_factory()
    return entry.default


def resolve(options: Options, layers: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Merge layers of values over the defaults and check them; later layers win.

    Args:
        options: The dataclasses.
        layers: Pairs of where the values come from (`FLAG`, a file) and the values.

    Raises:
        UserError: Unknown key, or a value that its type does not allow.
    """
    known, kinds = keys(options), types(options)
    values = {name: default(entry) for name, entry in known.items()}
    for where, layer in layers:
        for name, value in layer.items():
            if name not in known:
                raise unknown("key", name, known, where)
            place = f"{where}: key {name!r}"
            if where == FLAG:
                place = "--" + name.replace("_", "-")
                if value in ("none", ["none"]) and type(None) in get_args(kinds[name]):
                    value = None
            values[name] = _convert(value, kinds[name], place)
    return values


def make(cls: type[Any], values: Mapping[str, Any]) -> Any:
    """Build one of the dataclasses from the resolved values.

    Raises:
        UserError: A value outside its limits.
    """
    names = {entry.name for entry in dataclasses.fields(cls)}
    made = cls(**{name: value for name, value in values.items() if name in names})
    check_limits(made)
    return made


def _convert(value: Any, kind: Any, where: str) -> Any:
    if isinstance(value, str):
        value = _number(value, kind)
    allowed = literals(kind)
    if allowed and value not in allowed:
        raise unknown("value", value, [str(item) for item in allowed if item is not None], where)
    if is_list(kind) and isinstance(value, str):
        value = [value]
    try:
        # Strict, so that 2.5 steps, a rank of true or a model of 3 are mistakes.
        converted = TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{where}: must be {_wanted(first)}, not {first['input']!r}") from error
    if isinstance(converted, float) and not math.isfinite(converted):
        raise UserError(f"{where}: must be a finite number, not {value!r}")
    return converted


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


def read_config(path: Path) -> dict[str, Any]:
    """Read a configuration file: a mapping of keys; the versions that a run noted are left out.

    Raises:
        UserError: Missing, not YAML, or no mapping.
    """
    data = read_yaml(path)
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UserError(f"{path}: a configuration is a mapping of keys to values")
    return {str(key): value for key, value in data.items() if key != VERSIONS}


VERSIONS = "versions"


def dump_config(values: Mapping[str, Any]) -> str:
    """Return the YAML text of a resolved configuration, with the versions it ran under."""
    versions = {}
    for package in ("prefixnas", "torch", "transformers", "peft", "accelerate"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return yaml.safe_dump({**values, VERSIONS: versions}, sort_keys=False)


FREE = ("checkpoint_every",)
"""Keys that may change between a run and its resumption."""


def refuse_change(stored: Mapping[str, Any], values: Mapping[str, Any], path: Path) -> None:
    """Refuse to resume a run under another configuration.

    Raises:
        UserError: Names the first key that differs.
    """
    for name, value in values.items():
        if name not in FREE and (name not in stored or stored[name] != value):
            raise UserError(
                f"{path}: cannot resume with another configuration: "
                f"{name!r} was {stored.get(name)!r} and is now {value!r}"
            )
