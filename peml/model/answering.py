"""Which positions of a pass are those of answers, for what looks at a model's outputs there.

Whoever makes the pass knows it, by its labels; what is attached to the model does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_POSITIONS: ContextVar[Tensor | None] = ContextVar("answers", default=None)


@contextmanager
def answering(positions: Tensor) -> Iterator[None]:
    """Say where the answers of passes are.

    Args:
        positions: Whether an output is for a token of the answer, `[b, a]`, of the last a
            positions of a pass.
    """
    before = _POSITIONS.set(positions)
    try:
        yield
    finally:
        _POSITIONS.reset(before)


def answer_positions() -> Tensor | None:
    """Return where the answers of the pass are; None: nobody said it."""
    return _POSITIONS.get()
