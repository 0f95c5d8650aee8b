"""What a machine has in memory, and refusing what cannot fit before anything is begun."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from prefixnas.base.errors import UserError

TRAINED = 16
"""Bytes of a trained number: itself, its gradient and Adam's two averages, in float32."""

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def memory_of_machine() -> int:
    """Return the bytes of memory that this machine, or the container that this is in, has."""
    has = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in _LIMITS:
        with suppress(OSError, ValueError):  # none, or the word "max"
            has = min(has, int(Path(limit).read_text(encoding="utf-8")))
    return has


def refuse_beyond(needed: Mapping[str, int], has: int, what: str = "the machine") -> None:
    """Refuse what needs more memory than there is.

    Args:
        needed: Bytes that are needed at least, by what for.
        has: Bytes that there are.
        what: Whose memory it is.

    Raises:
        UserError: Names the estimate, its largest parts first, and what there is.
    """
    total = sum(needed.values())
    if total <= has:
        return
    largest = sorted(needed.items(), key=lambda part: -part[1])
    parts = ", ".join(f"{name} {_shown(size)}" for name, size in largest)
    raise UserError(
        f"the run needs at least {_shown(total)} of memory ({parts}), and {what} has {_shown(has)}"
    )


def _shown(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 10**8 else f"{size / 1e6:,.1f} MB"
