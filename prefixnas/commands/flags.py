"""Keys of a configuration as flags of a command."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any, get_args


def add_flag(group: Any, entry: dataclasses.Field[Any], kind: Any) -> None:
    """Offer a key of the configuration as a flag."""
    from prefixnas.base.options import default_of, is_list, literals

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
