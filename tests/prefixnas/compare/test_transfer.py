"""Transfer: which runs it makes, what is carried over, and that nothing is done twice."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import prefixnas.__main__
import prefixnas.compare.runner
from prefixnas.base.files import write_text
from prefixnas.base.options import option
from prefixnas.compare.carried import carry_over, taken_over
from prefixnas.compare.cells import Cell
from prefixnas.compare.transfer import FIRST, NEITHER, ONLY_TRAINED, SEARCHED
from prefixnas.launch.config import dump_config, read_config
from prefixnas.run.objective import OBJECTIVES, ObjectiveConfig
from prefixnas.run.result import read_result
from prefixnas.testing import ToyObjective

SPACE = "name: two\nseq: [linear, {choice: {key: act, options: [tanh, gelu]}}]\n"


@dataclass(frozen=True)
class Toy(ObjectiveConfig):
    """The toy problem with a learning rate as its task."""

    width: int = option(4, "width")
    pace: float = option(0.01, "learning rate")

    def build(self, total_steps: int, seed: int) -> ToyObjective:
        return ToyObjective(self.width, learning_rate=self.pace)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with two groups; runs take place in this process, and are noted in `ran`."""
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "space.yaml": SPACE,
        "slow.yaml": "pace: 0.001\n",
        "fast.yaml": "pace: 0.05\n",
        "wide.yaml": "width: 5\n",
        "common.yaml": "objective: toy-transfer\nspace: space.yaml\nsteps: 8\nrelaxation: ste\n",
    }.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setitem(OBJECTIVES._registered, "toy-transfer", Toy)

    def run_cells(cells: Sequence[Cell], jobs: int, lock: int, say: Callable[[str], None]) -> None:
        for cell in prefixnas.compare.runner.unfinished(cells):
            cell.folder.parent.mkdir(parents=True, exist_ok=True)
            file = cell.folder.with_suffix(".yaml")
            file.write_text(dump_config(cell.values))
            argv = ["search", "--config", str(file), "--out", str(cell.folder)]
            assert prefixnas.__main__.main(argv) == 0
            with (tmp_path / "ran").open("a") as ran:
                ran.write(f"{cell.folder}\n")

    monkeypatch.setattr(prefixnas.compare.runner, "run_cells", run_cells)
    monkeypatch.setattr("prefixnas.launch.check.check_problem", lambda configs: None)
    page = lambda folder, space=None: write_text(folder / "report.html", "")  # noqa: E731
    monkeypatch.setattr("prefixnas.launch.start.write_report", page)
    yield tmp_path


ARGV = ["transfer", "slow.yaml", "fast.yaml", "--config", "common.yaml", "--out", "out"]


def score(folder: str) -> float:
    result = read_result(Path(folder))
    assert result is not None
    return float(result["columns"]["trained child"]["score"])


def test_the_table_and_that_nothing_is_done_twice(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prefixnas.__main__.main([*ARGV, "--steps", "6"]) == 0
    first, second = csv.DictReader((place / "out/transfer.csv").open())
    assert (first["source"], first["target"], first["seed"]) == ("slow", "fast", "0")
    assert float(first[SEARCHED]) == score("out/fast/searched/seed0")
    assert float(first[ONLY_TRAINED]) == score("out/fast/from-slow/seed0")
    assert float(first[FIRST]) == score("out/fast/first-options/seed0")
    # The toy problem scores the same whatever its learning rate: nothing is trained in between.
    assert float(first[NEITHER]) == pytest.approx(score("out/slow/searched/seed0"), abs=1e-6)
    assert float(second[NEITHER]) == pytest.approx(score("out/fast/searched/seed0"), abs=1e-6)
    assert (first["tensors carried over"], first["tensors left fresh"]) == ("2", "0")
    stored = read_config(place / "out/fast/from-slow/seed0/config.yaml")
    assert (stored["strategy"], stored["steps"], stored["pace"]) == ("fixed", 6, 0.05)
    assert stored["arch"] == "out/slow/searched/seed0" and stored["baseline"] == "none"
    found = (place / "out/slow/searched/seed0/architecture.yaml").read_text()
    assert (place / "out/fast/from-slow/seed0/architecture.yaml").read_text() == found
    assert len((place / "ran").read_text().splitlines()) == 6

    table = capsys.readouterr().out
    (place / "ran").unlink()
    before = (place / "out/transfer.csv").read_text()
    assert prefixnas.__main__.main(["transfer", "--resume", "--out", "out"]) == 0
    assert not (place / "ran").exists()
    assert (place / "out/transfer.csv").read_text() == before
    assert "slow → fast" in table and "slow → fast" in capsys.readouterr().out


@pytest.mark.parametrize("more", [[], ["--resume"]])
def test_without_the_control_and_with_seeds(
    more: list[str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [*ARGV, "--no-control", "--seeds", "3,4", "--dry-run", *more]
    assert prefixnas.__main__.main(argv) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8 and all(line.endswith("to run") for line in lines)
    assert not (place / "out").exists()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["transfer", "slow.yaml", "--out", "out"], ["two groups"]),
        (["transfer", "slow.yaml", "fast.yaml"], ["--out"]),
        (["transfer", "slow.yaml", "nowhere.yaml", "--out", "out"], ["nowhere.yaml", "no such"]),
        ([*ARGV, "--seeds", "0,x"], ["--seeds", "'0,x'"]),
        ([*ARGV, "--seeds", "1,1"], ["--seeds", "twice"]),
        ([*ARGV, "--stesp", "3"], ["'--stesp'", "'--steps'"]),
        ([*ARGV, "--relaxation", "stee"], ["'stee'", "'ste'"]),
        ([*ARGV, "--out", "space.yaml"], ["space.yaml", "not a folder"]),
        ([*ARGV, "--out", "."], ["not empty"]),
        (["transfer", "--resume", "--out", "out"], ["out", "no transfer"]),
        (["transfer", "slow.yaml", "./slow.yaml", "--out", "out"], ["same name"]),
    ],
)
def test_mistakes_are_one_line(
    argv: list[str], said: list[str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prefixnas.__main__.main(argv) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and all(words in err for words in said), err
    assert not (place / "out").exists() and not (place / "ran").exists()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--seeds", "0,1"], "'seeds' was [0] and is now [0, 1]"),
        (["--no-control"], "'control' was True and is now False"),
        (["--steps", "9"], "'steps' was 6 and is now 9"),
        (["slow.yaml", "wide.yaml"], "'groups' was ['fast', 'slow'] and is now ['slow', 'wide']"),
        ([*ARGV[1:3], "--config", "other.yaml"], "'relaxation' was 'ste' and is now 'gumbel'"),
        (["--config", "other.yaml"], "--config: name the groups, too"),
    ],
)
def test_what_differs_from_what_was_begun_is_refused(
    argv: list[str], said: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "fast.yaml").write_text((place / "fast.yaml").read_text() + "clip: 2.0\n")
    assert prefixnas.__main__.main([*ARGV, "--steps", "6"]) == 0
    (place / "other.yaml").write_text("relaxation: gumbel\n")
    (place / "ran").unlink()
    capsys.readouterr()
    assert prefixnas.__main__.main(["transfer", *argv, "--out", "out", "--resume"]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert prefixnas.__main__.main([*ARGV, "--steps", "6", "--seeds", "0", "--resume"]) == 0
    assert not (place / "ran").exists()


def test_a_key_of_the_table_in_a_group_is_refused(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "fast.yaml").write_text("seed: 3\n")
    assert prefixnas.__main__.main(ARGV) == 2
    assert "fast.yaml: key 'seed'" in capsys.readouterr().err


def test_another_width_carries_nothing_over(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["transfer", "slow.yaml", "wide.yaml", "--config", "common.yaml", "--out", "out"]
    assert prefixnas.__main__.main(argv) == 1
    assert "slow to wide, seed 0: " in (error := capsys.readouterr().err)
    assert "4 wide, that of wide is 5" in error
    first, _ = csv.DictReader((place / "out/transfer.csv").open())
    assert first[NEITHER] == "" and float(first[ONLY_TRAINED]) < 0


def test_a_score_that_is_there_is_read(tmp_path: Path) -> None:
    path = tmp_path / "neither.json"
    path.write_text(json.dumps({"score": 0.5}))
    assert carry_over(tmp_path / "nowhere", {}, path) == {"score": 0.5}


def test_tensors_of_the_same_name_and_shape_are_taken_over() -> None:
    own = {
        "lora": {"a": torch.zeros(2), "b": torch.zeros(3)},
        "heads": {"x": torch.zeros(1)},
        "n": 1,
    }
    other = {
        "lora": {"a": torch.ones(2), "b": torch.ones(4)},
        "heads": {"y": torch.ones(1)},
        "n": 9,
    }
    merged, carried, fresh = taken_over(own, other)
    assert (carried, fresh) == (1, 2)
    assert merged["lora"]["a"].tolist() == [1, 1] and merged["lora"]["b"].tolist() == [0, 0, 0]
    assert list(merged["heads"]) == ["x"] and merged["n"] == 1
