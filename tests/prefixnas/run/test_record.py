"""A run read back: events, times, series."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from prefixnas.base.errors import UserError
from prefixnas.report.run_page import write_report
from prefixnas.run.event_file import read_events
from prefixnas.run.events import Event, Step, Warning
from prefixnas.run.record import alpha_matrix, final_probabilities, loss_series, read_record
from tests.prefixnas.recorded import ending, events, in_memory, steps, write


def test_events_come_back_as_written(finished: Path) -> None:
    assert read_events(finished) == [*events(), *ending()]


@pytest.mark.parametrize("tail", ['{"event": "st', '{"event": "warning", "message": "é'])
def test_a_last_line_that_was_cut_off_is_left_out_with_a_note(tmp_path: Path, tail: str) -> None:
    folder = write(tmp_path / "run", events())
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(tail.encode("utf-8")[:-1])
    *kept, note = read_events(folder)
    assert kept == events()
    number = len(events()) + 1
    assert isinstance(note, Warning)
    assert f"line {number}" in note.message


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{half", "not valid JSON"),
        ("[1]", "key 'event'"),
        ('{"event": "warning"}', "lacks the key 'message'"),
        ('{"event": "stop", "step": "x", "reason": "settled"}', "'x' as 'step'"),
    ],
)
def test_other_damage_names_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    folder = write(tmp_path / "run", events())
    path = folder / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines[:2], line, *lines[2:]]), encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(f"{path}, line 3: ")) as caught:
        read_events(folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_runs_and_damaged_results_are_user_errors(finished: Path) -> None:
    with pytest.raises(UserError, match="no such run folder"):
        read_events(finished / "nowhere")
    (finished / "empty").mkdir()
    with pytest.raises(UserError, match=r"no metrics\.jsonl"):
        write_report(finished / "empty")
    (finished / "result.json").write_text('{"columns": {"untouched": {"score": 1}}}')
    with pytest.raises(
        UserError, match=r"result\.json: key 'columns\.untouched\.task_scores': is missing"
    ):
        read_record(finished)
    (finished / "result.json").write_text("{")
    with pytest.raises(UserError, match=r"result\.json: not valid JSON"):
        read_record(finished)


def test_time_is_added_up_over_the_processes_of_a_resumed_run() -> None:
    record = in_memory(
        [*steps("search", 3, 0.0), *steps("search", 2, 4.0), *steps("train", 2, 0.5)]
    )
    # The first process took 6 seconds, the second began its own clock and took 2.5.
    assert record.seconds() == pytest.approx(8.5)
    assert record.timing() == {"search": (5, 6.0), "train": (2, 2.5)}


def test_time_per_phase_of_a_whole_run(finished: Path) -> None:
    timing = read_record(finished).timing()
    assert timing["search"] == (3, 3.0)
    assert timing["train"] == (4, 4.0)
    assert timing["evaluation"] == (0, 2.0 + 2.0 + 1.0 + 1.0)
    assert sum(seconds for _, seconds in timing.values()) == pytest.approx(13.0)


def test_alpha_matrix_holds_options_by_steps(interrupted: Path) -> None:
    record = read_record(interrupted)
    at, options, matrix = alpha_matrix(record, "layer0/act")
    assert at == [0, 5, 10]
    assert options == ["relu", "tanh"]
    np.testing.assert_array_equal(matrix, [[0.5, 0.3, 0.0], [0.5, 0.7, 1.0]])


def test_losses_of_tasks_that_take_turns() -> None:
    lines: list[Event] = [
        Step.of("train", number, 4, {"odd" if number % 2 else "even": float(number)}, 1e-3)
        for number in range(4)
    ]
    series = loss_series(in_memory(lines), "train")
    assert {task: (at.tolist(), values.tolist()) for task, (at, values) in series.items()} == {
        "even": ([0, 2], [0.0, 2.0]),
        "odd": ([1, 3], [1.0, 3.0]),
    }


def test_final_probabilities_rank_the_likeliest_first(interrupted: Path) -> None:
    ranking = final_probabilities(read_record(interrupted))
    assert list(ranking["layer0/act"].items()) == [("tanh", 1.0), ("relu", 0.0)]
    assert list(ranking["layer1/act"]) == ["relu", "tanh"]
