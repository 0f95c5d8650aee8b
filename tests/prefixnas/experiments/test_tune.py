from __future__ import annotations

import json
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefixnas.base.errors import UserError
from prefixnas.experiments.experiment import load_experiment
from prefixnas.experiments.lease import Demand, Lease, demand_of_worker, lease_now
from prefixnas.experiments.rows import COMPLETE, RUNNING, Row
from prefixnas.experiments.study import Study
from prefixnas.experiments.trial import run_trial
from prefixnas.experiments.worker import work
from tests.forked import Forked
from tests.pages import numbers_shown, strangers
from tests.prefixnas.experiments.small import small


def tune(file: Path, out: Path, *flags: str, **variables: str) -> Forked:
    command = ["-m", "prefixnas", "tune", str(file), "--out", str(out), *flags]
    return Forked(command, out.with_suffix(".log"), variables=variables)


def rows_of(file: Path, out: Path) -> list[Row]:
    return Study.open(load_experiment(file), out).rows()


def at_work(process: Forked, out: Path) -> None:
    """Wait until a worker of the process has taken up a trial."""
    while not any(log.stat().st_size for log in out.glob(f"logs/worker-{process.pid}-*.log")):
        assert process.poll() is None, out.with_suffix(".log").read_text()
        time.sleep(0.02)


def assigned(row: Row) -> dict[str, object]:
    return {name.rpartition("/")[2]: value for name, value in row.params.items()}


def test_killed_at_five_random_moments_nothing_is_lost_or_done_twice(tmp_path: Path) -> None:
    file = small(tmp_path / "small.yaml", trials=8, base__steps=24)
    out = tmp_path / "study"
    rng = random.Random(7)
    begun: dict[int, dict[str, object]] = {}
    ended: dict[int, object] = {}
    for _ in range(5):  # by one and the same command, which begins what was not begun
        process = tune(file, out, "--workers", "2", "--resume")
        at_work(process, out)
        time.sleep(rng.uniform(0.0, 0.6))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        for row in rows_of(file, out):
            assert row.number not in ended or ended[row.number] == row
            if row.over:
                ended[row.number] = row
            if row.state == RUNNING:
                known = begun.setdefault(row.number, dict(row.params))
                assert known.items() <= row.params.items()
    last = tune(file, out, "--workers", "2", "--resume")
    assert last.wait() == 0, out.with_suffix(".log").read_text()
    rows = rows_of(file, out)
    assert [row.number for row in rows] == list(range(8))
    assert {row.state for row in rows} == {COMPLETE}
    for number, params in begun.items():
        assert params.items() <= rows[number].params.items()
    assert begun, "no kill hit a trial"

    first = min(begun)  # the same as a trial that nobody disturbed
    config = load_experiment(file).resolve(assigned(rows[first]))
    alone = run_trial(config, lambda epoch, score: None, tmp_path / "alone")
    assert (alone.score, alone.epochs) == (rows[first].score, [*rows[first].epochs.values()])


def folder_of(row: Row) -> Path:
    return Path(row.notes["run directory"])


def test_two_processes_share_a_study(tmp_path: Path) -> None:
    file = small(tmp_path / "small.yaml", trials=7, storage=str(tmp_path / "study.db"))
    first = tune(file, tmp_path / "study")
    while not (tmp_path / "study" / ".place").is_file():
        assert first.poll() is None, (tmp_path / "study.log").read_text()
        time.sleep(0.05)
    second = tune(file, tmp_path / "study", "--resume")
    assert first.wait() == 0 and second.wait() == 0, (tmp_path / "study.log").read_text()
    rows = rows_of(file, tmp_path / "study")
    assert [row.state for row in rows] == [COMPLETE] * 7
    logs = sorted((tmp_path / "study" / "logs").glob("worker-*.log"))
    taken = [[line for line in log.read_text().splitlines() if "trials/" in line] for log in logs]
    assert len(logs) == 2  # on a busy machine the first may have ended all before the second began
    assert len({line for lines in taken for line in lines}) == sum(map(len, taken)) == 7
    report = (tmp_path / "study" / "report.html").read_text()
    assert report.count("data:image/png") == 4 and "src='http" not in report
    numbers = json.loads((tmp_path / "study" / "report.json").read_text())
    assert [row["score"] for row in numbers["trials"]] == [row.score for row in rows]
    assert sum(numbers["importance"].values()) == pytest.approx(1.0)
    assert strangers(tmp_path / "study") == [] and numbers_shown(tmp_path / "study") > 50
    began = json.loads((folder_of(rows[0]) / "metrics.jsonl").read_text().splitlines()[0])["began"]
    assert numbers["summary"]["date"] == began[:16].replace("T", " ")
    assert numbers["summary"]["tasks"] == "table"
    best = max(rows, key=lambda row: row.score or 0.0)
    assert numbers["best"] == best.number
    folder = folder_of(best)
    assert (folder / "config.yaml").is_file() and (folder / "architecture.yaml").is_file()
    assert json.loads((folder / "trial.json").read_text())["score"] == best.score


def test_killed_before_the_study_begins_it_is_resumable(tmp_path: Path) -> None:
    file = small(tmp_path / "small.yaml", trials=1, base__steps=20)
    process = tune(file, tmp_path / "study")
    while not (tmp_path / "study").is_dir():
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "study" / "study.journal").exists()
    resumed = tune(file, tmp_path / "study", "--resume")
    assert resumed.wait() == 0, (tmp_path / "study.log").read_text()
    assert [row.state for row in rows_of(file, tmp_path / "study")] == [COMPLETE]


@pytest.mark.parametrize("left", [[], [".beginning.tmp"]])
def test_an_empty_folder_is_a_study_killed_before_it_began(left: list[str], tmp_path: Path) -> None:
    file = small(tmp_path / "small.yaml", trials=1, base__steps=20)
    (tmp_path / "study").mkdir()
    for name in left:
        (tmp_path / "study" / name).touch()
    assert tune(file, tmp_path / "study", "--resume").wait() == 0
    assert [row.state for row in rows_of(file, tmp_path / "study")] == [COMPLETE]


def leased(workers: int, each: int = 1, take: int | None = None) -> list[str]:
    """Take the leases of a command's workers; return what each sees, "none" where it waits."""
    demand = demand_of_worker(workers, each)
    found = [lease_now(demand) for _ in range(take or workers)]
    HELD.extend(found)
    return [lease.environment()["CUDA_VISIBLE_DEVICES"] if lease else "none" for lease in found]


HELD: list[Lease | None] = []


@pytest.fixture
def leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Keep leases apart from those of this machine; give them back."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    for lease in HELD:
        if lease is not None:
            lease.release()
    HELD.clear()


@pytest.mark.parametrize(
    ("visible", "workers", "each", "seen"),
    [
        ("4,5,6,7", 4, 1, ["4", "5", "6", "7"]),
        ("4,5,6,7", 2, 2, ["4,5", "6,7"]),
        ("GPU-7b,GPU-3a", 2, 1, ["GPU-7b", "GPU-3a"]),
        ("1,0", 3, 1, ["1", "0", "1"]),
        ("3,-1,4", 2, 1, ["3", "3"]),
    ],
)
def test_each_worker_sees_gpus_of_its_own(
    visible: str,
    workers: int,
    each: int,
    seen: list[str],
    leases: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert leased(workers, each) == seen


def test_commands_do_not_share_gpus_unasked(leases: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert [leased(1), leased(1), leased(1)] == [["0"], ["1"], ["none"]]
    HELD.pop(0).release()  # type: ignore[union-attr]
    assert leased(1) == ["0"]


def test_without_gpus_nothing_is_leased(monkeypatch: pytest.MonkeyPatch) -> None:
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert demand_of_worker(2) == Demand()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(UserError, match="2 processes need a GPU each, and there are 1"):
        demand_of_worker(1, each=2)


def test_a_worker_waits_for_a_gpu_that_another_command_holds(
    leases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert leased(1) == ["0"]
    file = small(leases / "small.yaml", trials=1, base__steps=20)
    process = tune(file, leases / "study", TMPDIR=str(leases))
    log = leases / "study.log"
    while "1 of 1 workers wait for GPUs" not in log.read_text():
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    assert not list((leases / "study").glob("logs/*"))
    HELD.pop().release()  # type: ignore[union-attr]
    assert process.wait() == 0, log.read_text()
    assert [row.state for row in rows_of(file, leases / "study")] == [COMPLETE]


def test_interrupted_by_hand_it_says_how_to_go_on(tmp_path: Path) -> None:
    file = small(tmp_path / "small.yaml", trials=2)
    process = tune(file, tmp_path / "study")
    at_work(process, tmp_path / "study")
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert "--resume" in (tmp_path / "study.log").read_text()
    study = Study.open(load_experiment(file), tmp_path / "study")
    before = [row for row in study.rows() if row.state == RUNNING]
    assert before
    work(study)
    rows = study.rows()
    assert [row.state for row in rows] == [COMPLETE] * 2
    assert rows[before[0].number].params == before[0].params
