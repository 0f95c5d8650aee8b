"""Losses, entropies and scores reach trackers, whose files are read back."""

from __future__ import annotations

import json
import math
import os
import signal
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

import prefixnas.report.trackers as trackers
from prefixnas.__main__ import main
from prefixnas.report.trackers import series
from prefixnas.run.event_file import read_events
from prefixnas.run.events import Event, Step
from tests import forked
from tests.forked import SERVER
from tests.workbench import digest

Points = dict[str, list[tuple[int, float]]]


def arguments(bench: Path, run: Path, *more: str) -> list[str]:
    argv = ["search", "--model", str(bench / "llama"), "--tasks", str(bench / "mood")]
    argv += ["--steps", "12", "--prefix-length", "3", "--lora-rank", "2", "--batch-size", "4"]
    argv += ["--checkpoint-every", "3", "--eval-every", "2", "--baseline", "lora"]
    return [*argv, "--out", str(run), *more]


def expected(run: Path) -> Points:
    """What a run's own events say that trackers have."""
    points: Points = {}
    steps = 0
    for event in read_events(run):
        steps += isinstance(event, Step)
        for name, value in series(event).items():
            points.setdefault(name, []).append((steps, value))
    return points


def in_tensorboard(run: Path) -> Points:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    read.Reload()
    return {
        tag: [(event.step, event.value) for event in read.Scalars(tag)]
        for tag in read.Tags()["scalars"]
    }


def in_trackio(folder: Path) -> dict[str, Points]:
    """Everything in trackio's database, by the name of the run."""
    [file] = folder.glob("*.db")
    with sqlite3.connect(file) as database:
        rows = database.execute(
            "SELECT run_name, step, metrics FROM metrics ORDER BY id"
        ).fetchall()
    found: dict[str, Points] = {}
    for name, step, metrics in rows:
        for key, value in json.loads(metrics).items():
            found.setdefault(name, {}).setdefault(key, []).append((step, value))
    return found


def same(found: Points, wanted: Points) -> None:
    assert found.keys() == wanted.keys()
    for name, points in wanted.items():
        assert [step for step, _ in found[name]] == [step for step, _ in points], name
        for (_, value), (_, known) in zip(found[name], points, strict=True):
            assert math.isclose(value, known, rel_tol=1e-6, abs_tol=1e-6), name  # float32


def _child(argv: Sequence[str], variables: dict[str, str], at: tuple[str, int] | None) -> None:
    import torch

    import prefixnas.report.run_page
    from prefixnas.run.run import Run

    torch.set_num_threads(1)
    os.environ |= variables
    prefixnas.report.run_page.write_report = lambda *_: Path()
    emit = Run.emit

    def emit_and_die(run: Run, event: Event) -> None:
        emit(run, event)
        if at is not None and isinstance(event, Step) and (event.phase, event.step) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    Run.emit = emit_and_die  # type: ignore[method-assign]
    code = main(argv)
    os._exit(code)


def start(
    argv: Sequence[str], variables: dict[str, str], at: tuple[str, int] | None = None
) -> int | None:
    process = SERVER.Process(target=_child, args=(list(argv), variables, at))
    process.start()
    process.join(240)
    return process.exitcode


def test_trackers_hold_losses_entropies_and_scores(bench: Path, tmp_path: Path) -> None:
    run, folder = tmp_path / "run", tmp_path / "trackio"
    argv = arguments(bench, run, "--report-to", "tensorboard", "trackio", "--project", "mine")
    assert start(argv, {"TRACKIO_DIR": str(folder)}) == 0
    wanted = expected(run)
    for name in ("search/loss", "search/loss/mood", "search/entropy", "baseline/lr"):
        assert len(wanted[name]) == (12 if name.startswith("baseline") else 6)
    assert wanted["train/loss"][0][0] == 7  # steps are counted over all phases
    for column in ("untouched", "LoRA alone", "mixture", "argmax child", "trained child"):
        assert len(wanted[f"validation/{column}/mood"]) == 1
    assert len(wanted["train/selection/average"]) == 3
    same(in_tensorboard(run), wanted)
    assert [file.name for file in folder.glob("*.db")] == ["mine.db"]
    [(name, found)] = in_trackio(folder).items()
    assert name.startswith("run-")
    same(found, wanted)


def test_a_killed_run_reports_nothing_twice(bench: Path, tmp_path: Path) -> None:
    """It was 2 steps beyond its checkpoint: those are made again, and not sent again."""
    run, folder = tmp_path / "run", tmp_path / "trackio"
    variables = {"TRACKIO_DIR": str(folder)}
    argv = arguments(bench, run, "--report-to", "tensorboard")
    assert start(argv, variables, ("search", 4)) == -signal.SIGKILL
    assert len(in_tensorboard(run)["search/loss"]) == 5
    again = ["search", "--resume", "--out", str(run), "--report-to", "tensorboard", "trackio"]
    assert start(again, variables, ("train", 1)) == -signal.SIGKILL
    assert start(["search", "--resume", "--out", str(run)], variables) == 0
    same(in_tensorboard(run), expected(run))
    [found] = in_trackio(folder).values()  # it was named later, and has what came before
    whole = expected(run)
    assert set(found.get("search/loss", ())) <= set(whole["search/loss"])
    steps = [step for step, _ in found["train/loss"]]
    assert len(set(steps)) == len(steps)  # what was on its way at the kill may be missing
    assert found["baseline/loss"] == whole["baseline/loss"]


def test_a_tracker_that_is_not_installed_is_one_line(
    bench: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("accelerate.tracking._available_trackers", [])
    assert main(arguments(bench, tmp_path / "run", "--report-to", "tensorboard")) == 2
    said = capsys.readouterr().err
    assert said == (
        "error: key 'report_to': tensorboard is not installed: pip install tensorboard\n"
    )
    assert not (tmp_path / "run").exists()


def test_an_unknown_tracker_is_one_line(
    bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = arguments(bench, tmp_path / "run", "--report-to", "tensorbord", "--dry-run")
    assert main(argv) == 2
    assert "unknown tracker 'tensorbord': did you mean 'tensorboard'?" in capsys.readouterr().err


class Broken:
    """A tracker whose server is away, from the beginning or later on."""

    def __init__(self, run_name: str) -> None:
        self.got = 0

    def start(self) -> None:
        if os.environ.get("AWAY"):
            raise ConnectionError("no answer\nfor long")

    def store_init_configuration(self, values: dict[str, object]) -> None: ...

    def log(self, values: dict[str, float], step: int) -> None:
        self.got += 1
        if self.got > 2:
            raise ConnectionError("no answer")

    def finish(self) -> None: ...


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "aim", Broken)
    monkeypatch.setattr("accelerate.tracking._available_trackers", ["aim"])


@pytest.mark.usefixtures("broken")
def test_a_tracker_that_does_not_start_is_one_line(
    bench: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWAY", "1")
    assert main(arguments(bench, tmp_path / "run", "--report-to", "aim")) == 2
    said = capsys.readouterr().err
    assert said.endswith("error: key 'report_to': aim does not start: no answer\n")
    assert {*digest(tmp_path / "run")} <= {".lock"}
    monkeypatch.delenv("AWAY")
    with pytest.warns(UserWarning, match="aim failed, and gets no more of this run: no answer"):
        assert main(arguments(bench, tmp_path / "run", "--report-to", "aim")) == 0
    state = json.loads((tmp_path / "run" / trackers.STATE).read_text())
    assert state["sent"] == {"aim": 3}


def test_of_several_processes_the_first_reports(bench: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    argv = arguments(bench, run, "--report-to", "tensorboard", "--processes", "2")
    done = forked.run("-m", "prefixnas", *argv)
    assert done.returncode == 0, done.stderr
    same(in_tensorboard(run), expected(run))
    assert len([*(run / "tensorboard").glob("events.*")]) == 1
