"""Progress on a terminal and in plain lines."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from prefixnas.report.pace import Left, Pace
from prefixnas.report.progress import (
    LATEST,
    SOONEST,
    LiveProgress,
    PlainProgress,
    QuietProgress,
    clock,
    describe,
    open_progress,
)
from prefixnas.run import events


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def step(number: int, total: int, time: float, phase: str = "search", **more: Any) -> events.Step:
    found = events.Step.of(phase, number, total, {"sst2": 0.5, "rte": 0.75}, 1e-3)
    return replace(found, time=time, **more)


def evaluation(name: str = "mixture") -> events.Evaluation:
    scores = {"sst2": {"accuracy": 0.8}}
    return events.Evaluation(name, "validation", scores, {"sst2": 0.8}, 0.8, time=9.0)


def lines(*events: Mapping[str, Any]) -> list[str]:
    stream = io.StringIO()
    with PlainProgress(stream) as progress:
        for event in events:
            progress.on_event(event)
    return stream.getvalue().splitlines()


def test_the_end_of_a_search_shows_its_steadiest_pull() -> None:
    found = events.Evidence(48, 0.02, {"layer0/act": 0.4, "layer1/act": 0.02})
    (line,) = lines(found)
    assert line.endswith("alphas: the steadiest pull is on layer1/act (p by chance 0.020)")


def test_a_step_shows_phase_losses_entropy_and_time_left() -> None:
    first, last = lines(step(0, 101, 1.0), step(50, 101, 26.0, entropy=2.5))
    assert first == "search 1/101  loss 0.625 (sst2 0.500, rte 0.750)"
    # 25 seconds for 50 steps; 50 steps are left.
    assert last.startswith("search 51/101  loss 0.625")
    assert last.endswith("alpha entropy 2.500  0:25 left")


def test_fast_steps_do_not_flood_and_the_last_is_shown() -> None:
    shown = lines(*(step(n, 1000, 0.01 * n) for n in range(1000)))
    assert len(shown) <= 2 + 10 / SOONEST
    assert shown[0].startswith("search 1/1000")
    assert shown[-1].startswith("search 1000/1000")


def test_slow_steps_show_every_tenth_at_least() -> None:
    shown = lines(*(step(n, 100, 3.0 * n) for n in range(100)))
    assert [line.split()[1] for line in shown] == [
        "1/100",
        *(f"{10 * n}/100" for n in range(1, 11)),
    ]


def test_very_slow_steps_show_signs_of_life() -> None:
    shown = lines(*(step(n, 100_000, 10.0 * n) for n in range(10)))
    assert [int(line.split()[1].split("/")[0]) for line in shown] == [1, 4, 7, 10]
    assert LATEST == 30.0


@given(st.lists(st.floats(0.0, 40.0), min_size=1, max_size=60), st.integers(60, 500))
def test_lines_keep_their_distance_but_for_the_last(gaps: list[float], total: int) -> None:
    times, now = [], 0.0
    for gap in gaps:
        now += gap
        times.append(now)
    stream = io.StringIO()
    progress = PlainProgress(stream)
    at = []
    for number, time in enumerate(times):
        before = stream.getvalue()
        progress.on_event(step(number, total, time))
        if stream.getvalue() != before and number + 1 < total:
            at.append(time)
    assert all(later - earlier >= SOONEST for earlier, later in pairwise(at))


def test_a_phase_that_stops_early_still_shows_its_last_step() -> None:
    shown = lines(step(0, 100, 0.0), step(1, 100, 0.1), step(0, 50, 0.2, phase="train"))
    assert [line.split("  ")[0] for line in shown] == ["search 1/100", "search 2/100", "train 1/50"]
    shown = lines(step(0, 100, 0.0), step(1, 100, 0.1))
    assert shown[-1].startswith("search 2/100")


def test_evaluations_are_always_shown_behind_their_step() -> None:
    shown = lines(step(0, 100, 0.0), step(1, 100, 0.1), evaluation(), evaluation("argmax"))
    assert shown[1].startswith("search 2/100")
    assert shown[2] == "mixture (validation): score 0.800 (sst2 0.800)"
    assert shown[3].startswith("argmax (validation)")


def test_a_step_is_not_shown_twice() -> None:
    shown = lines(step(0, 1, 0.0), evaluation())
    assert len(shown) == 2


def test_other_events_in_one_line_each() -> None:
    dropped = [[f"layer{n}/act", "relu"] for n in range(5)]
    assert describe(events.Prune(9, dropped)) == (
        "step 10: pruned layer0/act=relu, layer1/act=relu, layer2/act=relu and 2 more"
    )
    choices = {"layer0/act": "relu", "layer0/drop": "dropout(0.1)", "layer1/act": "tanh"}
    assert describe(events.Architecture(choices)) == (
        "architecture: act: relu, tanh; drop: dropout(0.1)"
    )
    assert describe(events.Trial("trial 3", {"act": "relu"})) == ("trial 3: act: relu")
    assert describe(events.Warning("odd")) == "warning: odd"
    assert describe(events.End(3723.4)) == "finished in 1:02:03"
    assert describe(events.Other("of tomorrow", {})) == ""
    assert describe(events.Alpha("search", 0, {})) == ""


def test_clock() -> None:
    assert [clock(s) for s in (0, 7.4, 59.6, 750, 3600)] == [
        "0:00",
        "0:07",
        "1:00",
        "12:30",
        "1:00:00",
    ]


def test_time_left_counts_from_where_a_resumed_phase_starts() -> None:
    pace = Pace()
    assert pace.left(step(600, 1001, 5.0)) == Left()
    assert pace.left(step(610, 1001, 10.0)).phase == pytest.approx(0.5 * 390)
    assert pace.left(step(0, 100, 12.0, phase="train")).phase is None


def start() -> events.Start:
    """A run of 10 steps that search, 10 that train, and two baselines of 20."""
    steps = {"search": 10, "train": 10}
    return events.Start("s", "darts", "toy", 0, steps, {"baseline": 20, "at equal weights": 20})


def test_time_left_in_all_is_that_of_the_phases_to_come() -> None:
    pace = Pace([start()])
    assert pace.left(step(0, 10, 1.0)) == Left()
    assert pace.left(step(2, 10, 5.0)) == Left(14.0, 14.0 + 4.0 * 50)  # 2 of 3 steps were seen
    for number in range(3, 10):
        left = pace.left(step(number, 10, 2.0 * number + 1.0))
    assert left.phase == 0 and left.run == pytest.approx(18 / 8 * 50)
    assert pace.left(step(0, 20, 30.0, phase="train")).phase is None
    last = pace.left(step(19, 20, 60.0, phase="at equal weights"))
    assert last.run == pytest.approx(59 / 10 * 20)  # a baseline that never came is still expected


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 40), st.floats(0.1, 5.0))
def test_steady_steps_leave_what_is_left(search: int, train: int, beyond: int, each: float) -> None:
    steps = {"search": search, "train": train}
    pace = Pace(
        [events.Start("s", "darts", "toy", 0, steps, {"baseline": beyond} if beyond else {})]
    )
    phases = [("search", search), ("train", train), ("baseline", beyond)]
    every = [(phase, number, total) for phase, total in phases for number in range(total)]
    for done, (phase, number, total) in enumerate(every):
        left = pace.left(step(number, total, done * each, phase=phase))
        if done:
            assert left.run == pytest.approx((len(every) - done - 1) * each)


def test_a_search_of_many_short_phases_counts_all_of_them() -> None:
    pace = Pace([start()])
    for number in range(5):
        left = pace.left(step(0, 2, 2.0 * number, phase=f"trial {number}"))
        left = pace.left(step(1, 2, 2.0 * number + 1.0, phase=f"trial {number}"))
    assert left.run == pytest.approx(50.0)


def test_a_run_that_goes_on_has_less_left() -> None:
    earlier = [start(), *(step(number, 10, 9.0) for number in range(8))]
    pace = Pace(earlier)
    pace.left(step(5, 10, 1.0))  # the checkpoint is older than the last event
    assert pace.left(step(6, 10, 2.0)).run == pytest.approx(3 + 10 + 40)


def test_what_is_left_in_all_is_shown_on_lines_and_display() -> None:
    shown = lines(start(), step(0, 10, 1.0), step(5, 10, 6.0))
    assert shown[-1].endswith("0:04 left, 4:14 in all")
    progress = LiveProgress(Console(file=Terminal(), width=90))
    for event in (start(), step(0, 10, 1.0), step(5, 10, 6.0)):
        progress.on_event(event)
    page = Console(file=io.StringIO(), width=90)
    page.print(progress.render())
    assert "0:04 left, 4:14 in all" in page.file.getvalue()  # type: ignore[attr-defined]


def test_everything_is_told_of_every_step_if_wanted() -> None:
    stream = io.StringIO()
    with PlainProgress(stream, every=True) as progress:
        for number in range(4):
            progress.on_event(step(number, 100, 0.01 * number, weight_gradient_norm=0.5))
    shown = stream.getvalue().splitlines()
    assert len(shown) == 4
    assert all("learning rate 0.001  gradient of weights 0.5" in line for line in shown)


def test_quiet_leaves_warnings() -> None:
    stream = io.StringIO()
    with open_progress(stream, quiet=True) as progress:
        assert isinstance(progress, QuietProgress)
        for event in (start(), step(0, 2, 0.0), evaluation(), events.Warning("odd")):
            progress.on_event(event)
    assert stream.getvalue() == "warning: odd\n"


@pytest.mark.parametrize("interrupted", [False, True])
def test_the_bar_is_gone_after_the_run_and_stays_after_an_interruption(interrupted: bool) -> None:
    stream = Terminal()
    console = Console(file=stream, width=90, height=20, force_terminal=True)
    with suppress(KeyboardInterrupt), LiveProgress(console) as progress:
        progress.on_event(step(1, 2, 1.0))
        if interrupted:
            raise KeyboardInterrupt
    rubbed_out = stream.getvalue().endswith("\x1b[2K")
    assert rubbed_out is not interrupted


def test_terminal_gets_a_display_and_anything_else_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(open_progress(Terminal()), LiveProgress)
    assert isinstance(open_progress(io.StringIO()), PlainProgress)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert isinstance(open_progress(io.StringIO()), PlainProgress)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(open_progress(Terminal()), PlainProgress)
    monkeypatch.setattr("sys.stderr", None)
    with open_progress() as progress:
        progress.on_event(step(0, 10, 1.0))


def test_display_shows_step_losses_entropy_and_time_left() -> None:
    console = Console(file=Terminal(), width=90)
    progress = LiveProgress(console)
    progress.on_event(step(0, 101, 1.0))
    progress.on_event(step(50, 101, 26.0, entropy=2.5))
    page = Console(file=io.StringIO(), width=90)
    page.print(progress.render())
    text = page.file.getvalue()  # type: ignore[attr-defined]
    for part in ("search", "51/101", "0:25 left", "alpha entropy 2.500", "sst2", "0.750"):
        assert part in text


def test_display_keeps_evaluations_and_user_text_as_it_is() -> None:
    stream = Terminal()
    with LiveProgress(Console(file=stream, width=90, force_terminal=True)) as progress:
        progress.on_event(step(0, 2, 0.0))
        progress.on_event(evaluation("[bold]name[/bold]"))
        progress.on_event(step(1, 2, 1.0))
    assert "[bold]name[/bold] (validation): score 0.800" in stream.getvalue()
    assert "2/2" in stream.getvalue()


def test_progress_imports_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys, prefixnas.report.progress\n"
        "assert not {'torch', 'matplotlib', 'networkx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
