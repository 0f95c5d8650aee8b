"""Errors that a user can cause: one clear line, exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LINE, VALUE, LISTED = 300, 200, 120
"""Characters of a message, of a value in it, and of the names that it lists."""


class UserError(Exception):
    """Something the user can put right; its message is one line and complete.

    The message says what is wrong, where it is (file and key), and what is allowed. The command
    line prints it without a traceback and exits with code 2.
    """


class RunLost(Exception):
    """A run that cannot go on though nothing is wrong with it: one line, exit code 1."""


class Ended(RunLost):
    """Rank 0 ended the run, for a reason that it tells."""


def brief(value: object, most: int = VALUE) -> str:
    """Return how a message shows a value that a user gave: as Python writes it, cut if long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a whole number of thousands of digits
        text = f"a {type(value).__name__} too long to show"
    return _cut(text, most)


def visible(text: str) -> str:
    """Return a text with its control characters spelled out; tabs and ends of lines stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def one_line(text: str) -> str:
    """Return a message as it is printed: one line, not too long, and nothing a terminal obeys."""
    return _cut(visible(" ".join(text.split())), LINE)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text that is not empty; its kind if there is none."""
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)


def _cut(text: str, most: int) -> str:
    """Leave the middle of a long text out: it begins with the file and ends with what to do."""
    if len(text) <= most:
        return text
    end = most // 3
    return f"{text[: most - end - 5]} ... {text[-end:]}"


def nearest(name: object, options: Iterable[str]) -> str:
    """Return ``": did you mean 'darts'?"`` for the closest option, or an empty string."""
    cores = {option.lstrip("-"): option for option in options}  # all flags look alike in front
    close = difflib.get_close_matches(str(name).lstrip("-")[:VALUE], cores, n=1)
    return f": did you mean {brief(cores[close[0]], LISTED)}?" if close else ""


def unknown(kind: str, name: object, options: Iterable[str], where: str = "") -> UserError:
    """Build the error for a name that is not among the allowed ones.

    Args:
        kind: What is named ("strategy", "key").
        name: The unknown name.
        options: The allowed names.
        where: A file or key, put in front of the message.
    """
    allowed = sorted(options)
    prefix = f"{where}: " if where else ""
    hint = nearest(name, allowed)
    return UserError(
        f"{prefix}unknown {kind} {brief(name, LISTED)}{hint} (allowed: {_listed(allowed)})"
    )


def _listed(names: list[str]) -> str:
    """Return the names in a line; of many, the first ones and how many more there are."""
    listing = ", ".join(names)
    if len(listing) <= LISTED:
        return listing or "none"
    count = sum(len(", ".join(names[: index + 1])) <= LISTED for index in range(len(names)))
    return ", ".join([*names[:count], f"{len(names) - count} more"])
