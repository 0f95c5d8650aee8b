"""A study as it is shown while it runs: a live table, or plain lines where there is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, Self, TextIO

from rich.box import SIMPLE
from rich.console import Console, JustifyMethod
from rich.live import Live
from rich.table import Table
from rich.text import Text

from prefixnas.experiments.rows import COMPLETE, ERROR, FAIL, PRUNED, RUNNING, WAITING, Row
from prefixnas.report.progress import clock, terminal

_STYLES = {COMPLETE: "green", PRUNED: "yellow", FAIL: "red", RUNNING: "cyan", WAITING: "dim"}
_COLUMNS = ("trial", "state", "score", "epochs", "last", "time")

WIDE, NARROW = 160, 72
"""Columns of a table that is not for a terminal, and of a terminal that has room for all of it."""


class View(AbstractContextManager["View", None], Protocol):
    """Shows the trials of a study, again and again; used as a context manager."""

    def show(self, rows: Sequence[Row]) -> None:
        """Take the trials as they stand."""
        ...


def open_view(direction: str, stream: TextIO | None = None) -> View:
    """Return the view that suits `stream`, standard output if not given.

    Args:
        direction: `maximize` or `minimize`.
        stream: Where to.
    """
    stream = stream or sys.stdout
    console = terminal(stream)
    return PlainView(stream) if console is None else LiveView(console, direction)


def trial_table(
    rows: Sequence[Row], direction: str, *, width: int = WIDE, folded: bool = True
) -> Table:
    """Return the table of trials; the best score is bold.

    Args:
        rows: The trials.
        direction: Which of them is the best.
        width: Of the terminal; a narrow one gets fewer columns, and one line for each trial.
        folded: Whether hyper-parameters may take several lines if there is room.
    """
    scores = [row.score for row in rows if row.score is not None]
    best = (max if direction == "maximize" else min)(scores, default=None)
    table = Table(box=SIMPLE, header_style="bold", pad_edge=False)
    titles = [title for title in _COLUMNS if width >= NARROW or title not in ("epochs", "last")]
    for title in titles:
        align: JustifyMethod = "left" if title == "state" else "right"
        table.add_column(Text(title), justify=align, no_wrap=True)
    table.add_column(_line("hyper-parameters, error"), overflow="fold")
    for row in rows:
        if row.state == WAITING:
            continue
        is_best = row.score is not None and row.score == best
        cells = {
            "trial": Text(str(row.number)),
            "state": Text(row.state, _STYLES[row.state]),
            "score": Text(_number(row.score), "bold" if is_best else ""),
            "epochs": Text(str(len(row.epochs) or "-")),
            "last": Text(_number(row.epochs[max(row.epochs)] if row.epochs else None)),
            "time": Text("-" if row.seconds is None else clock(row.seconds)),
        }
        said, style = row.notes.get(ERROR) or describe(row.params), "red" * (row.state == FAIL)
        facts = Text(str(said), style) if folded and width >= NARROW else _line(str(said), style)
        table.add_row(*(cells[title] for title in titles), facts)
    waiting = sum(row.state == WAITING for row in rows)
    if waiting:
        table.caption = Text(f"{waiting} more to run", "dim")
        table.caption_justify = "left"
    return table


def _line(text: str, style: str = "") -> Text:
    """Return a cell that is cut off at the end of its line; its column gives way to the others."""
    return Text(text, style, no_wrap=True, overflow="ellipsis")


def describe(params: Mapping[str, Any]) -> str:
    """Return hyper-parameters in one line, numbers with four digits."""
    return ", ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in params.items()
    )


def _number(score: float | None) -> str:
    return "-" if score is None else f"{score:.4f}"


class PlainView(View):
    """A line when a trial begins and when it ends, for files, pipes and logs.

    Args:
        stream: Where lines go.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._seen: dict[int, str] | None = None

    def __exit__(self, *error: object) -> None:
        """Nothing is open."""

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
        self._stream.write(line + "\n")
        self._stream.flush()


def _said(row: Row) -> str:
    if row.state == FAIL:
        return f"failed: {row.notes.get(ERROR, 'no reason is known')}"
    facts = describe(row.params)
    if row.state == COMPLETE:
        return f"complete: score {_number(row.score)} ({facts})"
    if row.state == PRUNED:
        last = max(row.epochs, default=0)
        score = _number(row.epochs.get(last))
        return f"pruned in epoch {last}: score {score} ({facts})"
    return f"running ({facts})" if facts else "running"


class LiveView(View):
    """A table that renews itself, a line for each trial; it stays if what it shows was interrupted.

    Args:
        console: The terminal.
        direction: `maximize` or `minimize`.
    """

    def __init__(self, console: Console, direction: str) -> None:
        self._direction = direction
        self._live = Live(console=console, refresh_per_second=2, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.transient = error[0] is None  # else the whole table follows
        self._live.stop()

    def show(self, rows: Sequence[Row]) -> None:
        """Renew the table: the last trials, as many as there is room for."""
        size = self._live.console.size
        room = max(3, size.height - 6)
        begun = [row for row in rows if row.state != WAITING]
        left = [row for row in rows if row.state == WAITING]
        shown = [*begun[-room:], *left]
        self._live.update(trial_table(shown, self._direction, width=size.width, folded=False))
