"""Keys of a configuration as flags of a command."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from typing import Any, get_args

from prefixnas.base.console import Parser
from prefixnas.base.options import default_of, fields_of, is_list, literals, types_of
from prefixnas.base.registry import Registry


def add_flags(parser: Parser, title: str, cls: type[Any], skip: Collection[str] = ()) -> None:
    """Offer the keys of a dataclass of options as flags, in a group of their own.

    Args:
        parser: The command's parser.
        title: Of the group.
        cls: The dataclass.
        skip: Keys that are not offered.
    """
    group, kinds = parser.add_argument_group(title), types_of({"": cls})
    for name, entry in fields_of({"": cls}).items():
        if name not in skip:
            text = f"{entry.metadata.get('help', '')} (default: {default_of(entry)})"
            text = text.replace("%", "%%").strip()
            flag, form = "--" + name.replace("_", "-"), _form(kinds[name])
            group.add_argument(flag, dest=name, help=text, **form)
            if (former := entry.metadata.get("former")) is not None:
                _add_former(parser, former, name, form)


def add_all_flags(parser: Parser, skip: Collection[str] = ()) -> None:
    """Offer the keys of a run with every strategy, objective and part of one.

    Such a parser is for completion: a run has the keys of one strategy and one objective.

    Args:
        parser: The command's parser.
        skip: Keys that are not offered.
    """
    from prefixnas.launch.config import RunConfig
    from prefixnas.run.objective import OBJECTIVES
    from prefixnas.run.strategy import STRATEGIES

    classes: list[type[Any]] = [RunConfig, *map(STRATEGIES.get, STRATEGIES.names())]
    for objective in map(OBJECTIVES.get, OBJECTIVES.names()):
        parts = getattr(objective, "parts", {}).items()
        classes.append(objective)
        classes += [objective.with_parts({k: n}) for k, names in parts for n in names.names()]
    seen = set(skip)
    for cls in classes:
        add_flags(parser, cls.__name__, cls, seen)
        seen |= {*fields_of({"": cls})}


def names_of_keys() -> dict[str, list[str]]:
    """Return the names that are registered, by the key of a run whose values they are."""
    from prefixnas.network.relaxations import RELAXATIONS
    from prefixnas.oneshot import LEVELS, SELECTIONS, UPDATES
    from prefixnas.run.objective import OBJECTIVES
    from prefixnas.run.strategy import STRATEGIES
    from prefixnas.space.loading import SPACES

    registries: dict[str, Registry[Any]] = {
        "strategy": STRATEGIES,
        "objective": OBJECTIVES,
        "space": SPACES,
        "relaxation": RELAXATIONS,
        "level": LEVELS,
        "update": UPDATES,
        "selection": SELECTIONS,
    }
    for name in OBJECTIVES.names():
        registries |= getattr(OBJECTIVES.get(name), "parts", {})
    return {key: registry.names() for key, registry in registries.items()}


def parse_parts(argv: Sequence[str], objective: type[Any]) -> dict[str, str]:
    """Read the flags that name parts of an objective, whose keys become flags in turn.

    Args:
        argv: All arguments.
        objective: The dataclass of its options.
    """
    parser, known = Parser(add_help=False), fields_of({"": objective})
    for key in getattr(objective, "parts", {}):
        parser.add_argument("--" + key.replace("_", "-"), dest=key)
        if (former := known[key].metadata.get("former")) is not None:
            _add_former(parser, former, key, {})
    found, _ = parser.parse_known_args(argv)
    return {key: value for key, value in vars(found).items() if value is not None}


def _add_former(parser: Parser, former: str, name: str, form: dict[str, Any]) -> None:
    flag = "--" + former.replace("_", "-")
    parser.add_argument(flag, dest=name, help=argparse.SUPPRESS, **form)


def _form(kind: Any) -> dict[str, Any]:
    """Return what the parser is told of a flag of this type."""
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction, "default": None}
    if is_list(kind):
        return {"nargs": "*", "metavar": "X"}
    allowed = "|".join(str(item) for item in literals(kind) if item is not None)
    return {"metavar": allowed or _metavar(kind)}


def _metavar(kind: Any) -> str:
    parts = [part for part in get_args(kind) if part is not type(None)] or [kind]
    return "/".join(getattr(part, "__name__", "X").upper() for part in parts)
