"""Errors that a user can cause: one clear line, exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can put right; its message is one line and complete.

    The message says what is wrong, where it is (file and key), and what is allowed. The command
    line prints it without a traceback and exits with code 2.
    """


class RunLost(Exception):
    """A run that cannot go on though nothing is wrong with it: one line, exit code 1."""


class Ended(RunLost):
    """Rank 0 ended the run, for a reason that it tells."""


def nearest(name: object, options: Iterable[str]) -> str:
    """Return ``": did you mean 'darts'?"`` for the closest option, or an empty string."""
    cores = {option.lstrip("-"): option for option in options}  # all flags look alike in front
    close = difflib.get_close_matches(str(name).lstrip("-"), cores, n=1)
    return f": did you mean {cores[close[0]]!r}?" if close else ""


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
    listing = ", ".join(allowed) if allowed else "none"
    return UserError(f"{prefix}unknown {kind} {name!r}{hint} (allowed: {listing})")
