"""Keys of a configuration as flags of a command."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Collection
from typing import Any, get_args

from prefixnas.base.console import Parser
from prefixnas.base.options import default_of, fields_of, is_list, literals, types_of


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
            _add_flag(group, entry, kinds[name])


def _add_flag(group: Any, entry: dataclasses.Field[Any], kind: Any) -> None:
    """Offer a key of the configuration as a flag."""
    flag = "--" + entry.name.replace("_", "-")
    text = entry.metadata.get("help", "")
    shown = default_of(entry)
    help = f"{text} (default: {shown})".replace("%", "%%").strip()
    if kind is bool:
        group.add_argument(
            flag, dest=entry.name, action=argparse.BooleanOptionalAction, default=None, help=help
        )
    elif is_list(kind):
        group.add_argument(flag, dest=entry.name, nargs="*", metavar="X", help=help)
    else:
        allowed = literals(kind)
        metavar = "|".join(str(item) for item in allowed if item is not None) or _metavar(kind)
        group.add_argument(flag, dest=entry.name, metavar=metavar, help=help)


def _metavar(kind: Any) -> str:
    parts = [part for part in get_args(kind) if part is not type(None)] or [kind]
    return "/".join(getattr(part, "__name__", "X").upper() for part in parts)
