"""The terminal: what names and event files hold is shown there, never obeyed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from prefixnas.base.errors import visible

WIDE = 240
"""Columns of what is no terminal, such as a pipe or a file: nothing there ends a line."""


class Terminal(Console):
    """Rich's console, which spells control characters of the texts out that it prints.

    What is no terminal is `WIDE`, unless a width is given or the environment has `COLUMNS`.

    Args:
        width: Columns; those of the terminal if not given.
        options: As rich's console takes them.
    """

    def __init__(self, *, width: int | None = None, **options: Any) -> None:
        super().__init__(width=width, **options)
        if width is None and not self.is_terminal and "COLUMNS" not in os.environ:
            self.width = WIDE

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yield the parts of what is printed; colours and cursor are no part of their texts."""
        for segment in super().render(renderable, options):
            plain = segment.control or segment.text.isprintable()
            yield segment if plain else Segment(visible(segment.text), segment.style)
