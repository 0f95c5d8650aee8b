"""What names and event files hold is shown on a terminal, not obeyed."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from prefixnas.report.progress import PlainProgress
from prefixnas.report.terminal import WIDE, Terminal
from prefixnas.run import events

EVIL = "mood\x1b[2J\x1b]0;title\x07\x9b31m\u202e"


def printed(renderable: object, *, terminal: bool = False) -> str:
    stream = io.StringIO()
    Terminal(file=stream, force_terminal=terminal, width=200).print(renderable)
    return stream.getvalue()


def table(text: str) -> Table:
    made = Table("task")
    made.add_row(text)
    return made


@pytest.mark.parametrize("make", [Text, table, lambda text: Panel(Text(text))])
def test_escapes_are_spelled_out(make: object) -> None:
    assert callable(make)
    shown = printed(make(EVIL))
    assert r"mood\x1b[2J" in shown  # a column is no wider for it, so that its end may be cut
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(shown)


def test_colours_of_our_own_stay() -> None:
    shown = printed(Text(EVIL, "red"), terminal=True)
    assert "\x1b[31m" in shown and "\x1b[2J" not in shown


@given(st.text())
def test_nothing_but_lines_and_what_can_be_printed_reaches_the_terminal(text: str) -> None:
    assert all(each.isprintable() or each in "\n\t" for each in printed(Text(text)))


def test_plain_progress_shows_warnings_in_the_same_way() -> None:
    stream = io.StringIO()
    with PlainProgress(stream) as progress:
        progress.on_event(events.Warning(EVIL))
    assert r"\x1b[2J" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_a_pipe_is_wide_unless_it_is_said_to_be_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert Terminal(file=io.StringIO()).width == WIDE
    assert Terminal(file=io.StringIO(), width=50).width == 50
    monkeypatch.setenv("COLUMNS", "70")
    assert Terminal(file=io.StringIO()).width == 70
