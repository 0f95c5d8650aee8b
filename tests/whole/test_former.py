"""What version 0.1 left can be read; what it left unfinished is refused in one line."""

from __future__ import annotations

import csv
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

import peml.__main__
import prefixnas.__main__
from prefixnas.base.errors import UserError
from prefixnas.experiments.experiment import load_experiment
from prefixnas.experiments.study import Study
from prefixnas.run.checkpoint import load_checkpoint
from prefixnas.run.evaluation import ARGMAX, BASELINE, MIXTURE, TRAINED, UNTOUCHED
from prefixnas.run.record import read_record
from tests import ROOT
from tests.workbench import digest

WAS_IN = "/former"
"""The folder that absolute paths in the runs name; that of the test stands in for it."""

RUNS = ("run", "encoder", "killed")


@pytest.fixture
def former(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with models, tasks, runs, a comparison, a study and a transfer, the current one."""
    with tarfile.open(ROOT / "tests" / "data" / "former.tar.xz") as kept:
        kept.extractall(tmp_path, filter="data")
    for name in ("peml.json", "study.journal"):
        for path in tmp_path.rglob(name):
            path.write_text(path.read_text().replace(WAS_IN, str(tmp_path / "former")))
    monkeypatch.chdir(tmp_path / "former")
    return tmp_path / "former"


def said(capsys: pytest.CaptureFixture[str], main: Any, *argv: str, code: int = 0) -> str:
    capsys.readouterr()
    assert main(argv) == code
    out, err = capsys.readouterr()
    return str(err if code else out)


@pytest.mark.usefixtures("former")
@pytest.mark.parametrize("run", RUNS)
def test_a_run_is_shown_and_drawn(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = said(capsys, prefixnas.__main__.main, "show", run)
    assert "argmax child" in shown and "mood" in shown
    said(capsys, prefixnas.__main__.main, "report", run)
    assert "argmax child" in (Path(run) / "report.html").read_text()


@pytest.mark.usefixtures("former")
def test_its_columns_have_the_names_of_today() -> None:
    events = read_record(Path("run")).validated()
    assert list(events) == [UNTOUCHED, MIXTURE, ARGMAX, TRAINED, BASELINE]
    result = json.loads(Path("run/result.json").read_text())["columns"]
    assert [event.score for event in events.values()] == [c["score"] for c in result.values()]


@pytest.mark.usefixtures("former")
@pytest.mark.parametrize("run", ["run", "encoder"])
def test_an_adapter_is_scored_and_exported(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = json.loads((Path(run) / "result.json").read_text())["columns"]["trained child"]
    shown = said(capsys, peml.__main__.main, "evaluate", run)
    for task, score in trained["task_scores"].items():
        (line,) = [line for line in shown.splitlines() if line.split()[:1] == [task]]
        assert f"{score:.3f}" in line
    said(capsys, peml.__main__.main, "export", run, str(tmp_path / "exported"))
    assert (tmp_path / "exported" / "peml.json").is_file()


@pytest.mark.usefixtures("former")
@pytest.mark.parametrize("run", RUNS)
def test_going_on_is_refused_in_one_line_and_changes_nothing(
    run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = digest(Path(run))
    error = said(capsys, prefixnas.__main__.main, "search", "--resume", "--out", run, code=2)
    assert error.count("\n") == 1 and "by a version without the key" in error
    assert digest(Path(run)) == before


@pytest.mark.usefixtures("former")
def test_a_comparison_gives_its_tables_again(capsys: pytest.CaptureFixture[str]) -> None:
    with Path("comparison/runs.csv").open() as file:
        before = list(csv.DictReader(file))
    said(capsys, prefixnas.__main__.main, "compare", "--tables", "--out", "comparison")
    with Path("comparison/runs.csv").open() as file:
        after = list(csv.DictReader(file))
    assert [row["score"] for row in after] == [row["score"] for row in before]
    assert [row["argmax_child"] for row in after] == [row["argmax"] for row in before]


@pytest.mark.usefixtures("former")
def test_a_study_goes_on_with_what_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["tune", "study.yaml", "--out", "study", "--resume"]
    assert "best: trial 0" in said(capsys, prefixnas.__main__.main, *argv)
    rows = Study.open(load_experiment(Path("study.yaml")), Path("study")).rows()
    assert [row.state for row in rows] == ["complete", "complete"]


@pytest.mark.usefixtures("former")
def test_a_transfer_is_refused_and_keeps_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    before = digest(Path("transfer"))
    argv = ["transfer", "--resume", "--out", "transfer"]
    error = said(capsys, prefixnas.__main__.main, *argv, code=2)
    assert error.count("\n") == 1 and "by a version without the key" in error
    assert digest(Path("transfer")) == before


@pytest.mark.usefixtures("former")
def test_it_is_diagnosed_and_not_searched_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert "diagnosis.json" in said(capsys, prefixnas.__main__.main, "diagnose", "run")
    argv = ["diagnose", "run", "--replay", "3"]
    error = said(capsys, prefixnas.__main__.main, *argv, code=2)
    assert error.count("\n") == 1 and "by a version without the key" in error


@pytest.mark.usefixtures("former")
def test_a_checkpoint_of_another_format_is_refused() -> None:
    with pytest.raises(UserError, match=r"format 1 by another version.*config\.yaml"):
        load_checkpoint(Path("run/checkpoint"))
