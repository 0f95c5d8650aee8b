"""How far a command has come, on standard error: results alone go to standard output."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from prefixnas.commands.output import Output
from prefixnas.report.terminal import Terminal

LATEST = 10.0
"""Seconds between two lines where there is no terminal to draw a bar on."""


@contextmanager
def counted(
    total: int, what: str, output: Output, every: float = LATEST
) -> Iterator[Callable[[int], None]]:
    """Yield what is to be called with how many more are done.

    Args:
        total: How many there are.
        what: What is counted ("rows").
        output: Whether there is any, and whether every batch has a line.
        every: Seconds between two lines, where there is no terminal.
    """
    console = Terminal(stderr=True)
    if output.quiet:
        yield lambda count: None
        return
    if output.verbose or not console.is_terminal or console.is_dumb_terminal:
        yield _Lines(total, what, 0.0 if output.verbose else every).add
        return
    shown = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*shown, TimeRemainingColumn(), console=console, transient=True) as progress:
        bar = progress.add_task(what, total=total)
        yield lambda count: progress.advance(bar, count)


class _Lines:
    """A line now and then."""

    def __init__(self, total: int, what: str, every: float) -> None:
        self.total, self.what, self.every = total, what, every
        self.done, self.said = 0, time.monotonic()

    def add(self, count: int) -> None:
        self.done += count
        if time.monotonic() - self.said >= self.every:
            self.said = time.monotonic()
            print(f"{self.done} of {self.total} {self.what}", file=sys.stderr, flush=True)
