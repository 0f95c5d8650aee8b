"""Passes that look at the base model itself: which modules run, with which shapes and values.

What is attached for training stands aside meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_PROBING: ContextVar[bool] = ContextVar("probing", default=False)


@contextmanager
def probing() -> Iterator[None]:
    """Let passes be those of the base model."""
    before = _PROBING.set(True)
    try:
        yield
    finally:
        _PROBING.reset(before)


def is_probing() -> bool:
    """Tell whether a pass is of the base model alone."""
    return _PROBING.get()
