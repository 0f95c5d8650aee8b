"""A table that is killed and resumed, or made by two processes, is that of one."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import pytest

from peml.__main__ import main
from peml.tables.columns import TAKEN
from tests.forked import Forked
from tests.peml.tables.files import small, write

CELLS = 2 * (2 + 2)
"""Two rows, each with two trials and two seeds."""


def start(file: Path, out: Path, log: Path, *more: str) -> Forked:
    return Forked(["-m", "peml", "table", str(file), "--out", str(out), *more], log)


def wait_for(true: Callable[[], bool], process: Forked) -> None:
    while not true():
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.01)


def finished(out: Path) -> int:
    return len(list(out.glob("*/x*/seed*/row.json")))


def numbers(out: Path) -> list[list[dict[str, str]]]:
    """Return the tables without times."""
    tables = []
    for name in ("table.csv", "runs.csv"):
        with (out / name).open() as stream:
            tables.append(list(csv.DictReader(stream)))
    for line in [line for table in tables for line in table]:
        assert float(line.pop("seconds_a_step")) >= 0
    return tables


def shown_runs(out: Path, *, trial: bool = False) -> list[dict[str, str]]:
    """Return the runs that stand in the table, or those that tried rates."""
    with (out / "runs.csv").open() as stream:
        return [row for row in csv.DictReader(stream) if row["trial"] == str(trial)]


@pytest.fixture(scope="module")
def file(bench: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of two tasks, of which one has a test split."""
    place = tmp_path_factory.mktemp("table")
    mood = shutil.copytree(bench / "mood", place / "mood")
    lines = (mood / "validation.jsonl").read_text().splitlines()
    (mood / "test.jsonl").write_text("\n".join(lines[:5]) + "\n")
    return write(place / "file.yaml", small(bench, tasks=[str(mood), str(bench / "order")]))


@pytest.fixture(scope="module")
def whole(file: Path) -> Path:
    out = file.parent / "whole"
    process = start(file, out, file.parent / "whole.log")
    assert process.wait() == 0, (file.parent / "whole.log").read_text()
    return out


def test_a_table_that_was_killed_twice_goes_on(file: Path, whole: Path, tmp_path: Path) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    for done in (1, 5):  # by one and the same command, which begins what was not begun
        process = start(file, out, log, "--resume")

        def in_the_middle(done: int = done) -> bool:
            checkpoints = list(out.glob("*/x*/seed*/checkpoint/state.json"))
            return finished(out) >= done and bool(checkpoints)

        wait_for(in_the_middle, process)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert finished(out) < CELLS
    assert start(file, out, log, "--resume").wait() == 0, log.read_text()
    assert numbers(out) == numbers(whole)
    assert not list(out.glob("*/x*/seed*/checkpoint"))


def test_scores_on_a_test_split_have_a_column(whole: Path) -> None:
    kept: dict[str, float] = {}
    for path in whole.glob("*/x*/seed[01]/row.json"):
        tests = json.loads(path.read_text())["tests"]
        column = json.loads((path.parent / "result.json").read_text())["test"]["trained child"]
        assert tests == column["task_scores"] and [*tests] == ["mood"]
        kept[str(path.parent.relative_to(whole))] = tests["mood"]
    with (whole / "table.csv").open() as stream:
        for row in csv.DictReader(stream):
            place = f"{row['row']}/x{float(row['rates x']):g}"
            tests = [kept[f"{place}/seed{seed}"] for seed in (0, 1)]
            assert float(row["on test"]) == pytest.approx(fmean(tests))
    for row in shown_runs(whole):
        place = f"{row['row']}/x{float(row['rates x']):g}/seed{row['seed']}"
        assert float(row["on test"]) == kept[place]
    assert len(kept) == len(shown_runs(whole)) == 4
    text = (whole / "table.md").read_text()
    assert "| on test |" in text.splitlines()[2] and text.count("nothing was chosen by it") == 1


def test_what_tries_rates_is_scored_on_the_split_that_they_are_chosen_by_alone(whole: Path) -> None:
    trials = shown_runs(whole, trial=True)
    assert len(trials) == 4
    for row in trials:
        assert (row["mood"], row["validation"], row["on test"]) == ("", "", "")
        assert 0 <= float(row["selection"]) <= 1
    for path in whole.glob("*/x*/seed100/metrics.jsonl"):
        splits = {event.get("split") for event in map(json.loads, path.open())}
        assert splits == {None, "selection"}


def test_columns_that_a_task_could_be_called_are_known(whole: Path) -> None:
    for name in ("table.csv", "runs.csv"):
        with (whole / name).open() as stream:
            columns = {*next(csv.reader(stream))} - {"mood", "order"}
        assert {column for column in columns if " " not in column} <= TAKEN


def test_several_processes_share_the_work(file: Path, whole: Path, tmp_path: Path) -> None:
    out, logs = tmp_path / "out", [tmp_path / "one", tmp_path / "two"]
    one, two = (start(file, out, log, "--resume") for log in logs)
    assert (one.wait(), two.wait()) == (0, 0)
    said = "".join(log.read_text() for log in logs)
    assert said.count(", seed ") == CELLS
    assert numbers(out) == numbers(whole)


def test_a_resumed_table_trains_nothing_again(
    file: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = numbers(whole)
    left = whole / "LoRA" / "x1" / "seed100" / "checkpoint"
    left.mkdir()  # a kill came between the record and the end
    assert main(["table", str(file), "--out", str(whole), "--resume"]) == 0
    assert not left.exists()
    assert ", seed " not in capsys.readouterr().err
    assert numbers(whole) == before


def test_a_finished_run_under_other_keys_is_refused(
    bench: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = small(bench)
    table["common"]["lora_rank"] = 3
    other = write(tmp_path / "other.yaml", table)
    assert main(["table", str(other), "--out", str(whole), "--resume"]) == 2
    assert "'lora_rank' was 2 and is now 3" in capsys.readouterr().err


def test_a_dry_run_lists_and_counts(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["table", str(file), "--dry-run", "--out", str(tmp_path / "none")]) == 0
    said = capsys.readouterr().out
    assert "LoRA: method lora, space none; 2 trials of 4 steps, 2 runs of 6 steps" in said
    assert "4 runs and 4 trials of learning rates, 40 joint steps" in said
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ([], "holds a table already; add --resume"),
        (["--out"], "expected one argument"),
        (["--resume", "--bogus"], "unknown argument '--bogus'"),
    ],
)
def test_bad_arguments_are_one_line(
    file: Path, whole: Path, more: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["table", str(file), "--out", str(whole), *more]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_without_a_folder_nothing_begins(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", str(file)]) == 2
    assert "needs --out DIR" in capsys.readouterr().err
    assert main(["table", str(file), "--out", str(file.parent / "no"), "--tables"]) == 2
    assert "no table to resume" in capsys.readouterr().err


def test_a_row_that_a_model_refuses_does_not_stop_the_others(
    bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {"LoRA": {}, "nowhere": {"lora_targets": ["no_such_layer"]}}
    table = small(bench, rows=rows, rates=[1], seeds=[0], paper={})
    out = tmp_path / "out"
    assert main(["table", str(write(tmp_path / "t.yaml", table)), "--out", str(out)]) == 1
    assert "failed: nowhere: " in capsys.readouterr().err
    assert "nowhere: failed: " in (out / "table.md").read_text()
    assert finished(out) == 1
    kept = json.loads(next(out.glob("LoRA/*/*/row.json")).read_text())
    assert kept["weights_in_use"] == kept["weights"] > 0 < kept["saved_bytes"]
