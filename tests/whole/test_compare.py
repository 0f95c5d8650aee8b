"""A whole comparison: killed, resumed, with a run that fails."""

from __future__ import annotations

import csv
import signal
import time
from itertools import pairwise
from pathlib import Path

import yaml

from prefixnas.run.events import Step
from prefixnas.run.record import read_record
from tests import ROOT
from tests.forked import Forked, run
from tests.pages import numbers_shown, strangers
from tests.workbench import digest, events

PLUGINS = [
    str(ROOT / "tests/prefixnas/compare/compared.py"),
    str(ROOT / "examples/hill_climber.py"),
]


def wait_for(path: Path, text: str, process: Forked) -> None:
    deadline = time.monotonic() + 200
    while not (path.is_file() and text in path.read_text()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)


def test_a_killed_comparison_goes_on_and_repeats_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    asked = ["--strategies", "failing,hill-climb", "--trials", "2", "--space", "tabular"]
    asked += ["--seeds", "0", "--random-draws", "0", "--budget", "120", "--checkpoint-every", "10"]
    argv = ["compare", "--objective", "slow-toy", "--plugin", *PLUGINS, *asked]
    process = Forked(["-m", "prefixnas", *argv, "--out", str(out)], tmp_path / "said")
    interrupted = out / "tabular/hill-climb/seed0"
    wait_for(interrupted / "metrics.jsonl", '"phase": "trial 1", "step": 15', process)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    made = out / "references/one-tanh/seed0"
    assert (made / "result.json").is_file() and not (interrupted / "result.json").exists()
    before, steps = digest(made), len(events(interrupted, "step"))

    argv = ["compare", "--resume", "--plugin", *PLUGINS, "--out", str(out)]
    ended = run("-m", "prefixnas", *argv)
    assert ended.returncode == 1
    *said, line = ended.stderr.splitlines()
    assert "tabular/failing/seed0: this strategy always fails" in line
    assert digest(made) == before
    assert said and "references/one-tanh/seed0" not in "".join(said)  # nothing to do there

    # The interrupted run went on from its checkpoint: its clock began anew after the first trial.
    record = read_record(interrupted)
    starts = [e for e, later in pairwise(record.events) if later.time < e.time]
    (first,) = starts
    assert isinstance(first, Step) and first.phase == "trial 1" and first.step <= steps
    assert record.start("steps") == {"search": 60, "total": 120}

    with (out / "runs.csv").open() as file:
        rows = {(row["kind"], row["label"]): row for row in csv.DictReader(file)}
    assert rows["search", "failing"]["state"] == "failed"
    assert rows["search", "failing"]["reason"] == "this strategy always fails"
    for key in (("search", "hill-climb"), ("search", "random"), ("hand-made", "one tanh")):
        row = rows[key]
        assert row["state"] == "finished" and row["steps"] == "120"
        assert float(row["peak_memory"]) > 2**20 and float(row["seconds"]) > 0.5
    alone = rows["alone", "linear alone"]
    trained = read_record(out / "tabular/random/seed0").columns()["linear alone"]
    assert trained is not None and float(alone["score"]) == trained["score"]
    tested = read_record(out / "tabular/random/seed0").tested()
    for row, column in ((alone, "linear alone"), (rows["search", "random"], "trained child")):
        assert float(row["test"]) == (tested[column] or {})["score"] != float(row["score"])
    found = yaml.safe_load((out / "architectures.yaml").read_text())
    choices = found["tabular"]["hill-climb"][0]["choices"]
    assert choices == record.architecture.choices  # type: ignore[union-attr]
    assert (out / "compute.png").read_bytes().startswith(b"\x89PNG")
    text = (out / "summary.md").read_text()
    assert "| hill-climb |" in text and "| failing | failed |" in text
    assert "| on test |" in text
    assert strangers(out) == [] and numbers_shown(out) > 50
