"""Hyper-parameters of an experiment: ranges and choices, which may open further ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from prefixnas.base.errors import UserError, brief, unknown
from prefixnas.base.options import MOST

KINDS = ("uniform", "loguniform", "int", "logint", "choice")
Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class Range:
    """Numbers between two bounds, both included.

    Attributes:
        key: The key of the search that it sets.
        name: Its name in the study: the key, behind the options that it hangs on.
        low: The lower bound.
        high: The upper bound.
        whole: Whole numbers alone.
        log: Uniform in the logarithm.
    """

    key: str
    name: str
    low: float
    high: float
    whole: bool
    log: bool

    @property
    def extremes(self) -> tuple[Scalar, ...]:
        """The two bounds."""
        return self.low, self.high


@dataclass(frozen=True)
class Option:
    """One option of a choice.

    Attributes:
        label: The option in the study, a scalar: the value itself, or its text if it is a list.
        value: What the key is set to.
        within: Hyper-parameters that there are with this option alone.
        fixed: Other keys that this option sets.
    """

    label: Scalar
    value: Any
    within: tuple[Range | Alternatives, ...] = ()
    fixed: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Alternatives:
    """One of several values.

    Attributes:
        key: The key of the search that it sets.
        name: As for `Range`.
        options: The values, in the order of the file.
    """

    key: str
    name: str
    options: tuple[Option, ...]

    @property
    def extremes(self) -> tuple[Scalar, ...]:
        """All labels."""
        return tuple(option.label for option in self.options)


Hyperparameter = Range | Alternatives
Ask = Callable[[Hyperparameter], Any]
"""Returns a number within a range, or the label of an option."""


def read_hyperparameters(data: Any, where: str, inside: str = "") -> tuple[Hyperparameter, ...]:
    """Read the mapping from keys to `{kind: bounds or options}`.

    Args:
        data: The mapping.
        where: The file, for messages.
        inside: Name of the option that it belongs to, with a slash behind it.

    Raises:
        UserError: An unknown kind, bounds upside down, an empty choice.
    """
    if not isinstance(data, Mapping):
        raise UserError(
            f"{where}: expected a mapping from keys to hyper-parameters, not {brief(data)}"
        )
    return tuple(_read(str(key), spec, where, inside) for key, spec in data.items())


def assign(hyperparameters: Sequence[Hyperparameter], ask: Ask) -> dict[str, Any]:
    """Return the keys of the search that the hyper-parameters set, each asked for by `ask`."""
    values: dict[str, Any] = {}
    for parameter in hyperparameters:
        answer = ask(parameter)
        if isinstance(parameter, Range):
            values[parameter.key] = answer
            continue
        option = by_label(parameter, answer)
        values[parameter.key] = option.value
        values.update(option.fixed or {})
        values.update(assign(option.within, ask))
    return values


def corners(hyperparameters: Sequence[Hyperparameter]) -> Iterator[dict[str, Any]]:
    """Yield assignments in which each bound and each option occurs: what a check has to try."""
    first = {name: extremes[0] for name, extremes, _ in _flat(hyperparameters, {})}
    for name, extremes, opened in _flat(hyperparameters, {}):
        for extreme in extremes:
            answers = {**first, **opened, name: extreme}
            yield assign(hyperparameters, by_name(answers))
    if not hyperparameters:
        yield {}


def refuse_doubles(
    hyperparameters: Sequence[Hyperparameter], taken: Mapping[str, str], where: str
) -> None:
    """Refuse a key that two places set in one trial, of which one would win in silence.

    Options of one choice may set the same key.

    Args:
        hyperparameters: The hyper-parameters of an experiment.
        taken: Keys that are set besides, each with where it stands.
        where: The file, for messages.

    Raises:
        UserError: Names the key and both places.
    """
    _add_keys(hyperparameters, taken, where)


def _add_keys(
    hyperparameters: Sequence[Hyperparameter], taken: Mapping[str, str], where: str
) -> dict[str, str]:
    """Return the keys that are taken and those that the hyper-parameters may set, with places."""
    found = dict(taken)
    for parameter in hyperparameters:
        _add(found, parameter.key, parameter.name, where)
        before = dict(found)
        for option in parameter.options if isinstance(parameter, Alternatives) else ():
            inside = dict(before)
            for key in option.fixed or {}:
                _add(inside, key, f"{parameter.name}={option.label}/{key}", where)
            found |= _add_keys(option.within, inside, where)
    return found


def _add(found: dict[str, str], key: str, name: str, where: str) -> None:
    if key in found:
        raise UserError(f"{where}: {name!r} stands in {found[key]}, too")
    found[key] = repr(name)


def by_name(answers: Mapping[str, Any]) -> Ask:
    """Return what answers from a mapping of names in the study."""
    return lambda parameter: answers[parameter.name]


def _flat(
    hyperparameters: Sequence[Hyperparameter], opened: Mapping[str, Scalar]
) -> Iterator[tuple[str, tuple[Scalar, ...], Mapping[str, Scalar]]]:
    """Yield names and extremes of all, with the answers that lead there."""
    for parameter in hyperparameters:
        yield parameter.name, parameter.extremes, opened
        if isinstance(parameter, Alternatives):
            for option in parameter.options:
                yield from _flat(option.within, {**opened, parameter.name: option.label})


def _read(key: str, spec: Any, where: str, inside: str) -> Hyperparameter:
    place = f"{where}: hyper-parameter {inside + key!r}"
    if not isinstance(spec, Mapping) or len(spec) != 1:
        raise UserError(
            f"{place}: expected one of {', '.join(KINDS)} with its values, not {brief(spec)}"
        )
    ((kind, given),) = spec.items()
    if kind not in KINDS:
        raise unknown("kind", kind, KINDS, place)
    if not isinstance(given, list):
        raise UserError(f"{place}: {kind} takes a list, not {brief(given)}")
    if kind == "choice":
        return _read_choice(key, given, place, where, inside)
    return _read_range(key, str(kind), given, place, inside)


def _read_range(key: str, kind: str, given: list[Any], place: str, inside: str) -> Range:
    whole, log = kind in ("int", "logint"), kind in ("loguniform", "logint")
    if len(given) != 2:
        raise UserError(f"{place}: {kind} takes two bounds, not {brief(given)}")
    low, high = (_number(bound, whole, place) for bound in given)
    if low >= high:
        raise UserError(f"{place}: the lower bound {low} is not below the upper bound {high}")
    if log and low <= 0:
        raise UserError(f"{place}: {kind} takes bounds above 0, not {low}")
    return Range(key, inside + key, low, high, whole, log)


def _number(bound: Any, whole: bool, place: str) -> float:
    wanted = "a whole number" if whole else "a number"
    number = bound
    if isinstance(bound, str):  # 1e-3 is a text in YAML, which wants a dot in it
        with suppress(ValueError):
            number = float(bound)
    finite = isinstance(number, (int, float)) and -MOST <= number <= MOST
    if not finite or isinstance(number, bool) or (whole and number != int(number)):
        raise UserError(f"{place}: a bound must be {wanted}, not {brief(bound)}")
    return int(number) if whole else float(number)


def _read_choice(key: str, given: list[Any], place: str, where: str, inside: str) -> Alternatives:
    if not given:
        raise UserError(f"{place}: the choice has no options")
    options = []
    for item in given:
        if isinstance(item, Mapping):
            if len(item) != 1 or not isinstance(next(iter(item.values())), Mapping):
                raise UserError(
                    f"{place}: an option with keys of its own is VALUE: {{KEY: ...}}, "
                    f"not {brief(item)}"
                )
            ((value, keys),) = item.items()
        else:
            value, keys = item, {}
        label = _label(value)
        open_ = {name: spec for name, spec in keys.items() if isinstance(spec, Mapping)}
        within = read_hyperparameters(open_, where, f"{inside}{key}={label}/")
        fixed = {str(name): spec for name, spec in keys.items() if name not in open_}
        options.append(Option(label, value, within, fixed))
    texts = [str(option.label) for option in options]
    for option, text in zip(options, texts, strict=True):
        if texts.count(text) > 1:
            raise UserError(f"{place}: the option {option.label!r} occurs twice")
    return Alternatives(key, inside + key, tuple(options))


def _label(value: Any) -> Scalar:
    return value if isinstance(value, Scalar) else json.dumps(value)


def by_label(choice: Alternatives, label: Any) -> Option:
    """Return the option of a choice that the study knows by a label."""
    for option in choice.options:
        if option.label == label and isinstance(option.label, bool) == isinstance(label, bool):
            return option
    raise ValueError(f"{choice.name}: no option {label!r}")
