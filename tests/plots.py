"""Figures in tests: runs draw hundreds that nobody looks at, which takes longer than training.

A figure is made as ever; where it is saved, an empty picture is written in its place. `rendered`
draws it for real, without laying out its labels and with few dots.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

EMPTY = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)
"""A picture of one pixel, as PNG."""


@contextmanager
def left_out() -> Iterator[None]:
    """Write empty pictures meanwhile."""

    def save(figure: object, place: IO[bytes] | Path, **_: Any) -> None:
        if isinstance(place, Path):
            place.write_bytes(EMPTY)
        else:
            place.write(EMPTY)

    with _saved_by(save):
        yield


@contextmanager
def rendered() -> Iterator[None]:
    """Draw figures meanwhile."""
    from matplotlib.figure import Figure

    genuine = getattr(Figure, "genuine", Figure.savefig)

    def save(figure: Figure, *args: Any, **options: Any) -> None:
        figure.set_layout_engine("none")
        genuine(figure, *args, **{**options, "dpi": 30})

    with _saved_by(save):
        yield


@contextmanager
def _saved_by(save: Callable[..., None]) -> Iterator[None]:
    from matplotlib.figure import Figure

    before = Figure.savefig
    Figure.genuine = getattr(Figure, "genuine", before)  # type: ignore[attr-defined]
    Figure.savefig = save  # type: ignore[method-assign]
    try:
        yield
    finally:
        Figure.savefig = before  # type: ignore[method-assign]
