"""Tables of a run, and what `prefixnas show` prints."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from prefixnas.base.errors import UserError
from prefixnas.report.run_page import write_report
from prefixnas.report.tables import (
    best_of,
    fitting_score_table,
    probability_table,
    score_rows,
    score_table,
    show,
)
from prefixnas.run import events as run_events
from prefixnas.run.record import read_record
from prefixnas.run.result import check_columns
from tests.prefixnas.recorded import COLUMNS, TASKS, events, write


def text_of(what: Any, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(what)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_table_has_a_row_per_task_and_the_average(finished: Path) -> None:
    grid = score_table(read_record(finished).columns())
    assert grid.head == ["task", *(label for label, scored in COLUMNS.items() if scored)]
    assert [row[0] for row in grid.rows] == [*TASKS, "average"]
    assert grid.breaks == [2]
    columns: Any = list(zip(*grid.rows, strict=True))[1:]
    assert [span.text for span in columns[3]] == ["0.750", "0.950", "0.850"]
    assert [[span.style == "bold" for span in column] for column in columns] == [
        [False, False, False],
        [True, False, False],
        [False, False, False],
        [True, True, True],
    ]


def test_table_of_a_result_and_of_a_run_that_goes_on(finished: Path) -> None:
    result = json.loads((finished / "result.json").read_text())
    assert check_columns(result, "result") == read_record(finished).columns()
    (finished / "result.json").unlink()
    labels = score_table(read_record(finished).columns()).head
    assert labels == ["task", "untouched", "mixture", "argmax child", "trained child"]
    with pytest.raises(UserError, match="columns"):
        check_columns({}, "result")


def test_best_scores_share_a_tie_and_a_missing_task_is_no_score() -> None:
    assert best_of([0.1, 0.50004, None, 0.5]) == {1, 3}
    assert best_of([None, None]) == set()
    one: Any = {"scores": {}, "task_scores": {"a": 1.0}, "score": 1.0}
    two: Any = {"scores": {}, "task_scores": {"b": 0.5}, "score": 0.5}
    assert score_rows({"x": one, "y": None, "z": two}) == [
        ("a", [1.0, None, None]),
        ("b", [None, None, 0.5]),
        ("average", [1.0, None, 0.5]),
    ]


def test_show_tells_summary_architecture_ranking_and_scores(finished: Path) -> None:
    text = text_of(show(finished))
    assert re.search(r"state +finished", text)
    assert re.search(r"discretisation gap +\+0\.100", text)
    assert re.search(r"layer0 +tanh", text)
    assert re.search(r"layer0/act +tanh 1\.000 +relu pruned", text)
    assert re.search(r"layer1/act +relu 0\.600 +tanh 0\.400", text)
    assert "trained child" in text
    assert "warning: <script>bad()</script> [red]" in text


def test_show_of_runs_that_have_less(tmp_path: Path) -> None:
    text = text_of(show(write(tmp_path / "run", events(alphas=False))))
    assert re.search(r"state +not finished", text)
    assert "Architecture" not in text
    assert "Probabilities" not in text
    assert re.search(r"sst2 +0\.500", text)


def test_probabilities_stand_beside_what_they_rest_on(interrupted: Path) -> None:
    before = probability_table(read_record(interrupted))
    assert [*before.head] == ["decision", "candidates"]
    found = run_events.Evidence(48, 0.01, {"layer0/act": 0.01, "layer1/act": 0.73})
    with (interrupted / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(found.to_json()) + "\n")
    after = probability_table(read_record(interrupted))
    assert [*after.head] == ["decision", "candidates", "p by chance"]
    assert [(row[0], row[2]) for row in after.rows] == [
        ("layer0/act", "0.010"),
        ("layer1/act", "0.730"),
    ]
    assert "p by chance" in write_report(interrupted).read_text(encoding="utf-8")


def test_the_interval_reaches_two_standard_errors_to_either_side() -> None:
    sure: Any = {
        "task_scores": {"a": 0.5, "b": 0.7},
        "score": 0.6,
        "standard_errors": {"a": 0.01, "b": 0.02},
        "standard_error": 0.0112,
    }
    unsure: Any = {"task_scores": {"a": 0.5, "b": 0.7}, "score": 0.6}
    half: Any = {**unsure, "standard_errors": {"a": 0.01}, "standard_error": None}
    columns = {"x": sure, "y": unsure, "z": half, "w": None}

    def texts(wide: bool) -> list[list[str]]:
        rows = score_table(columns, wide).rows
        return [[cell if isinstance(cell, str) else cell.text for cell in row] for row in rows]  # type: ignore[union-attr]

    assert texts(wide=True) == [
        ["a", "0.500 ± 0.020", "0.500", "0.500 ± 0.020"],
        ["b", "0.700 ± 0.039", "0.700", "0.700"],
        ["average", "0.600 ± 0.022", "0.600", "0.600"],
    ]
    narrow = texts(wide=False)
    assert narrow[:3] == [[cell.partition(" ±")[0] for cell in row] for row in texts(wide=True)]
    assert narrow[3:] == [["95 % interval ±", "0.022", "-", "-"]]
    assert len(score_table(columns).head) == 4, "nothing was scored for w"
    assert len(score_table({"y": unsure}).rows) == 3
    assert "± 0.022" in text_of(fitting_score_table(columns))
    assert "interval ±" in text_of(fitting_score_table(columns), 44)
