"""What is told of a comparison's runs: summaries, tables, the page."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from prefixnas.compare.cells import REFERENCES
from prefixnas.compare.comparison import AVERAGE_RANDOM
from prefixnas.compare.files import write_comparison
from prefixnas.compare.page import task_table, write_page
from prefixnas.compare.results import CellResult
from prefixnas.compare.summary import HAND_MADE, RANDOM_SEARCH, Summary, summarise
from prefixnas.compare.tables import markdown
from tests.prefixnas.compare.planned import plan

pytestmark = pytest.mark.usefixtures("rendered", "toy")


def results() -> list[CellResult]:
    """Three seeds of everything; darts is 0.1 above the mean of two draws, give or take 0.01."""
    found = []
    for seed, base in enumerate((0.50, 0.60, 0.70)):
        for number, shift in enumerate((-0.05, 0.05)):
            found.append(result("draw", AVERAGE_RANDOM, seed, base + shift, number=number))
        found.append(result("search", "darts", seed, base + 0.1 + 0.01 * (seed - 1)))
        found.append(result("search", "random", seed, base + 0.01))
        found.append(result("hand-made", "one tanh", seed, base + 0.2, REFERENCES))
        found.append(result("hand-made", "worse", seed, base - 0.2, REFERENCES))
        found.append(result("alone", "linear alone", seed, base, REFERENCES))
        found.append(result("retrained", "darts", seed, base + 0.3))
    return found


def result(
    kind: str, label: str, seed: int, score: float, space: str = "default", number: int = 0
) -> CellResult:
    return CellResult(
        space, label, kind, seed, seed + 1000 * number, "finished", score=score,
        argmax_child=score - 0.1, search_steps=5, steps=10, search_seconds=1.0, seconds=2.0 + seed,
        architecture=None if kind == "alone" else {"layer0/activation": "tanh"},
        task_scores={"first": score},
    )  # fmt: skip


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], Summary]:
    monkeypatch.setattr("prefixnas.compare.summary._agreement", lambda runs: (0.5, 0.25))
    tables = summarise(plan(strategies=["darts", "random"]), results())
    assert list(tables) == ["default"]
    return {(row.kind, row.label): row for row in tables["default"]}


def test_a_summary_of_known_scores(rows: dict[tuple[str, str], Summary]) -> None:
    darts = rows["search", "darts"]
    assert darts.mean == pytest.approx(0.7)
    assert darts.spread == pytest.approx(0.11)  # 0.59, 0.70, 0.81
    assert darts.mean_of("seconds") == pytest.approx(3.0)
    over = darts.over[AVERAGE_RANDOM]
    assert over.mean == pytest.approx(0.1)
    assert over.relative == pytest.approx(0.1 / 0.6)
    half = 4.302652729911275 * 0.01 / math.sqrt(3)  # t of 2 degrees of freedom
    assert (over.low, over.high) == pytest.approx((0.1 - half, 0.1 + half))
    assert over.verdict == "above"
    assert darts.over[RANDOM_SEARCH].mean == pytest.approx(0.09)
    assert darts.over[HAND_MADE].mean == pytest.approx(-0.1)
    assert rows["draw", AVERAGE_RANDOM].mean == pytest.approx(0.6)
    assert len(rows["draw", AVERAGE_RANDOM].runs) == 6
    assert AVERAGE_RANDOM not in rows["draw", AVERAGE_RANDOM].over
    assert RANDOM_SEARCH not in rows["search", "random"].over
    assert HAND_MADE not in rows["hand-made", "one tanh"].over
    assert darts.over_retrained[HAND_MADE].mean == pytest.approx(0.1)
    assert darts.over_retrained[HAND_MADE].verdict == "above"


def test_tables_have_a_cell_for_each_heading(rows: dict[tuple[str, str], Summary]) -> None:
    text = markdown({"default": list(rows.values())})
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {lines[0].count("|")}
    (darts,) = [line for line in lines if "darts" in line]
    assert "0.700 ± 0.110 (n=3)" in darts and "> +0.100 (+16.7 %)" in darts
    assert "darts: above the average random architecture: +0.100" in text


def test_the_page_shows_what_its_file_holds(
    rows: dict[tuple[str, str], Summary], tmp_path: Path
) -> None:
    tables = {"default": list(rows.values())}
    runs = [replace(run, state="failed") for row in rows.values() for run in row.runs]
    write_page(plan(space=["default"], strategies=["darts"]), runs, tables, tmp_path, None)
    html = (tmp_path / "report.html").read_text()
    assert "<script" not in html and "http" not in html
    for text in ("Space default", "darts", "Differences with their", "0.700 ± 0.110"):
        assert text in html
    data = json.loads((tmp_path / "summary.json").read_text())
    (darts,) = [row for row in data["spaces"]["default"] if row["label"] == "darts"]
    over = rows["search", "darts"].over[AVERAGE_RANDOM]
    assert darts["score"] == pytest.approx(0.7)
    assert darts["over_average_random_low"] == pytest.approx(over.low)
    assert sorted(darts["scores"]) == ["0", "1", "2"]
    assert len(data["runs"]) == len(runs)


def test_scores_on_a_test_split_have_a_column_where_there_are_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They stand beside the others, and no difference is taken of them."""
    monkeypatch.setattr("prefixnas.compare.summary._agreement", lambda runs: (0.5, 0.25))
    found = results()
    plain = summarise(plan(strategies=["darts"]), found)
    scored = [
        replace(run, test=run.score - 0.2, task_tests={"first": run.score - 0.2})
        if run.score is not None and run.label == "darts" and run.kind == "search"
        else run
        for run in found
    ]
    tested = summarise(plan(strategies=["darts"]), scored)
    assert "on test" not in markdown(plain) and "task_tests" not in plain["default"][0].data()
    (line,) = [line for line in markdown(tested).splitlines() if line.startswith("| darts")]
    assert line.split(" | ")[1:3] == ["0.700 ± 0.110 (n=3)", "0.500 ± 0.110 (n=3)"]
    assert markdown(tested).count("nothing was chosen by it") == 1
    for one, other in zip(plain["default"], tested["default"], strict=True):
        assert one.over == other.over and one.scores == other.scores
    (darts,) = [row.data() for row in tested["default"] if row.label == "darts"]
    assert (darts["test"], darts["test_sd"]) == pytest.approx((0.5, 0.11))
    assert darts["task_tests"] == {
        "first": {"score": pytest.approx(0.5), "score_sd": pytest.approx(0.11)}
    }


def test_scores_by_task_are_means_over_the_runs() -> None:
    made = CellResult("s", "darts", "search", 0, 0, "finished", score=0.5, task_scores={"a": 0.4})
    other = replace(made, seed=1, score=0.7, task_scores={"a": 0.6, "b": 1.0})
    row = Summary("s", "darts", "search", {}, [made, other], None, 0, {}, None, None, {}, {})
    lines = task_table({row.label: row.task_scores}).markdown().replace("**", "").splitlines()
    assert lines[2:] == ["| a | 0.500 ± 0.141 |", "| b | 1.000 |"]
    assert row.data()["task_scores"] == {
        "a": {"score": pytest.approx(0.5), "score_sd": pytest.approx(0.1414, abs=1e-4)},
        "b": {"score": 1.0, "score_sd": None},
    }


def test_a_comparison_without_a_finished_run_has_tables(tmp_path: Path) -> None:
    comparison = plan(space=["default", "mlp"], strategies=["darts"])
    cells = comparison.cells(tmp_path)
    found, _ = write_comparison(comparison, cells, tmp_path)
    assert {item.state for item in found} == {"not run", "refused"}
    with (tmp_path / "runs.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(cells)
    assert "darts: refused: space 'mlp' leaves no choice" in (tmp_path / "summary.md").read_text()
    assert not (tmp_path / "compute.png").exists()
    assert "refused: space" in (tmp_path / "report.html").read_text()
