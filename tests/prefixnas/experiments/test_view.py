"""What `prefixnas tune` shows while it runs: on terminals of any size, and where there is none."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from prefixnas.experiments.rows import COMPLETE, ERROR, FAIL, PRUNED, RUNNING, WAITING, Row
from prefixnas.experiments.view import for_terminal, live_view, open_view, trial_table
from prefixnas.report.grid import Number, Span

PARAMS = {"learning_rate": 0.0123456, "prefix_length": 37, "strategy": "darts", "lora_rank": 16}
ROW = Row(0, COMPLETE, 0.6625, {1: 0.5, 2: 0.6583}, PARAMS, {}, 83.0)
ERRORS = {ERROR: "no memory left"}
ROWS = [
    ROW,
    replace(ROW, number=1, state=PRUNED, score=None),
    replace(ROW, number=2, state=FAIL, score=None, epochs={}, notes=ERRORS),
    *(replace(ROW, number=n, state=RUNNING, score=None, seconds=None) for n in range(3, 40)),
    *(Row(n, WAITING, None, {}, {}, {}, None) for n in range(40, 43)),
]


def printed(width: int, *, folded: bool) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(for_terminal(ROWS, "maximize", width, folded=folded))
    return [line.rstrip() for line in console.file.getvalue().splitlines() if line.strip()]  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [50, 72, 80, 120])
def test_a_trial_takes_one_line_and_its_numbers_are_whole(width: int) -> None:
    lines = printed(width, folded=False)
    assert len(lines) == 2 + 40 + 1
    assert all(words in lines[2] for words in ("complete", "0.6625", "1:23"))
    assert ("0.6583" in lines[2]) == (width >= 72)
    assert "no memory" in lines[4] and lines[-1].strip() == "3 more to run"


def test_page_and_terminal_show_the_same_trials_and_the_best_in_bold() -> None:
    rows = [ROW, replace(ROW, number=1, score=0.25, params={"clip": 0.5}), *ROWS[1:3]]
    page = trial_table(rows, "minimize", ("trial", "score"), apart=True)
    assert page.head == ["trial", "score", *PARAMS, "clip", "error"]
    aligned = [title for title in page.head if isinstance(title, Number)]
    assert aligned == ["trial", "score", *(name for name in PARAMS if name != "strategy"), "clip"]
    without = trial_table(rows[:2], "minimize", ("trial", "score"), apart=True)
    assert without.head == page.head[:-1] and [row[:-1] for row in page.rows[:2]] == without.rows
    assert list(page.rows[0][2:-1]) == ["0.01235", "37", "darts", "16", "-"]
    terminal = trial_table(rows, "minimize", ("trial", "score"))
    assert [row[:2] for row in terminal.rows] == [row[:2] for row in page.rows]
    assert [row[1] for row in page.rows[:2]] == [Span("0.6625"), Span("0.2500", "bold")]
    assert [row[-1] for row in page.rows[2:]] == [Span(""), Span("no memory left", "red")]


def test_the_table_at_the_end_cuts_nothing_off() -> None:
    text = " ".join(" ".join(printed(80, folded=True)).split())
    assert "…" not in text and "lora_rank=16" in text


def test_the_live_table_fits_the_terminal_and_shows_the_last_trials() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80, height=24)
    with live_view(console, "maximize") as show:
        show(ROWS)
        shown = screen.getvalue()
    assert shown.count("running") == 18 and " 39 " in shown
    assert shown.count("\n") < 24


def test_without_a_terminal_there_is_a_line_for_each_change() -> None:
    stream = io.StringIO()
    with open_view("maximize", stream) as show:
        for _ in range(3):
            show(ROWS[3:5])
        show([ROW, replace(ROWS[2], number=4)])
    lines = stream.getvalue().splitlines()
    assert "\x1b" not in stream.getvalue() and len(lines) == 4
    assert lines[0].startswith("[0/2] trial 3 running (learning_rate=0.01235")
    assert lines[-1] == "[2/2] trial 4 failed: no memory left"
