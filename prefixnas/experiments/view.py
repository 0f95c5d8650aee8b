"""A study as it is shown while it runs: a live table, or plain lines where there is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from prefixnas.base.errors import visible
from prefixnas.experiments.rows import (
    COMPLETE,
    ERROR,
    FAIL,
    PRUNED,
    RUNNING,
    STEPS,
    VALIDATION,
    WAITING,
    Row,
)
from prefixnas.report.grid import Cell, Grid, Number, Span, number
from prefixnas.report.progress import clock, terminal
from prefixnas.report.terminal import Terminal

_STYLES = {COMPLETE: "green", PRUNED: "yellow", FAIL: "red", RUNNING: "cyan"}

WIDE, NARROW = 160, 72
"""Columns of a table that is not for a terminal, and of a terminal that has room for all of it."""


Show = Callable[[Sequence[Row]], None]
"""Takes the trials of a study as they stand, again and again."""


@contextmanager
def open_view(direction: str, stream: TextIO | None = None) -> Iterator[Show]:
    """Show trials in the way that suits a stream.

    Args:
        direction: `maximize` or `minimize`.
        stream: Where to; standard error if not given.
    """
    stream = stream or sys.stderr
    console = terminal(stream)
    if console is None:
        yield PlainView(stream).show
    else:
        with live_view(console, direction) as show:
            yield show


def trial_table(
    rows: Sequence[Row], direction: str, columns: Sequence[str], apart: bool = False
) -> Grid:
    """Return the table of the trials that have begun; the best score is bold.

    Args:
        rows: The trials.
        direction: `maximize` or `minimize`.
        columns: What is shown of a trial before its hyper-parameters and its error.
        apart: Whether each of these has a column, or all share one.
    """
    scores = [row.score for row in rows if row.score is not None]
    best = (max if direction == "maximize" else min)(scores, default=None)
    begun = [row for row in rows if row.state != WAITING]
    names = list(dict.fromkeys(name for row in begun for name in row.params)) if apart else []
    lines: list[list[Cell]] = []
    for row in begun:
        cells = _cells(row, row.score is not None and row.score == best)
        values = [short(row.params.get(name)) for name in names]
        said = str(row.notes.get(ERROR) or ("" if apart else describe(row.params)))
        error = Span(said, "red" if row.state == FAIL else "")
        lines.append([*(cells[title] for title in columns), *values, error])
    head = [title if title == "state" else Number(title) for title in columns]
    head += [Number(name) if _of_numbers(begun, name) else name for name in names]
    if apart and not any(row.notes.get(ERROR) for row in begun):
        return Grid(head, [line[:-1] for line in lines])
    return Grid([*head, "error" if apart else "hyper-parameters, error"], lines)


def _of_numbers(rows: Sequence[Row], name: str) -> bool:
    """Tell whether a hyper-parameter is a number wherever it is given."""
    found = [row.params[name] for row in rows if row.params.get(name) is not None]
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in found)


def _cells(row: Row, best: bool) -> dict[str, Cell]:
    """Return what can be shown of a trial, by the title of its column."""
    return {
        "trial": str(row.number),
        "state": Span(row.state, _STYLES.get(row.state, "")),
        "score": Span(number(row.score, ".4f"), "bold" if best else ""),
        "validation": number(row.notes.get(VALIDATION), ".4f"),
        "epochs": str(len(row.epochs) or "-"),
        "last": number(row.epochs[max(row.epochs)] if row.epochs else None, ".4f"),
        "steps": str(row.notes.get(STEPS, "-")),
        "time": "-" if row.seconds is None else clock(row.seconds),
    }


def for_terminal(rows: Sequence[Row], direction: str, width: int, *, folded: bool) -> Group:
    """Return the table for a terminal, and how many trials are waiting.

    Args:
        rows: The trials.
        direction: `maximize` or `minimize`.
        width: Of the terminal; a narrow one gets fewer columns, and one line for each trial.
        folded: Whether a trial may take several lines if there is room.
    """
    wide = width >= NARROW
    columns = ("trial", "state", "score", *(("epochs", "last") if wide else ()), "time")
    table = trial_table(rows, direction, columns).rich(one_line=not (folded and wide))
    waiting = sum(row.state == WAITING for row in rows)
    return Group(table, *([Text(f"{waiting} more to run", "dim")] if waiting else []))


def whole_table(rows: Sequence[Row], direction: str) -> tuple[Group, int]:
    """Return the table of all trials for standard output, and its width where it is no terminal."""
    console = Terminal()
    width = console.width if console.is_terminal else WIDE
    return for_terminal(rows, direction, width, folded=True), width


def describe(params: Mapping[str, Any]) -> str:
    """Return hyper-parameters in one line."""
    return ", ".join(f"{name}={short(value)}" for name, value in params.items())


def short(value: Any) -> str:
    """Return a hyper-parameter as a cell shows it, numbers with four digits; "-" for None."""
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


class PlainView:
    """A line when a trial begins and when it ends, for files, pipes and logs.

    Args:
        stream: Where lines go.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._seen: dict[int, str] | None = None

    def show(self, rows: Sequence[Row]) -> None:
        """Print what is new."""
        if self._seen is None:  # a study that goes on: what was over before is not told again
            self._seen = {row.number: row.state for row in rows if row.over}
            if self._seen:
                self._print(f"{len(self._seen)} of {len(rows)} trials are over")
        over = sum(row.over for row in rows)
        for row in rows:
            if row.state != WAITING and self._seen.get(row.number) != row.state:
                self._seen[row.number] = row.state
                self._print(f"[{over}/{len(rows)}] trial {row.number} {_said(row)}")

    def _print(self, line: str) -> None:
        print(visible(line), file=self._stream, flush=True)


def _said(row: Row) -> str:
    if row.state == FAIL:
        return f"failed: {row.notes.get(ERROR, 'no reason is known')}"
    facts = describe(row.params)
    if row.state == COMPLETE:
        return f"complete: score {number(row.score, '.4f')} ({facts})"
    if row.state == PRUNED:
        last = max(row.epochs, default=0)
        score = number(row.epochs.get(last), ".4f")
        return f"pruned in epoch {last}: score {score} ({facts})"
    return f"running ({facts})" if facts else "running"


@contextmanager
def live_view(console: Console, direction: str) -> Iterator[Show]:
    """Renew a table, a line for each trial; it stays if what it shows was interrupted.

    Args:
        console: The terminal.
        direction: `maximize` or `minimize`.
    """
    live = Live(console=console, auto_refresh=False, transient=True)

    def show(rows: Sequence[Row]) -> None:
        """Show the last trials, as many as there is room for."""
        size = console.size
        begun = [row for row in rows if row.state != WAITING]
        left = [row for row in rows if row.state == WAITING]
        shown = [*begun[-max(3, size.height - 6) :], *left]
        live.update(for_terminal(shown, direction, size.width, folded=False), refresh=True)

    with live:
        try:
            yield show
        except BaseException:
            live.transient = False  # else the whole table follows
            raise
