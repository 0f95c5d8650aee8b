"""Which files may run code: none that a command reads, unless a flag names what it names."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

import prefixnas.__main__
from prefixnas.base.errors import UserError
from prefixnas.base.plugins import TRUSTED, trust
from prefixnas.launch.plan import resolve_run
from prefixnas.launch.replay import search_again
from tests.workbench import SMALL


@pytest.fixture
def place(bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run, a study, a comparison and a transfer whose files name a plugin."""
    monkeypatch.delenv(TRUSTED, raising=False)
    monkeypatch.chdir(tmp_path)
    for entry in bench.iterdir():
        (tmp_path / entry.name).symlink_to(entry)
    (tmp_path / "evil.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    plain = {"model": "llama", "tasks": ["mood"], "steps": 4, "prefix_length": 3}
    keys: dict[str, Any] = {**plain, "plugin": ["evil.py"]}
    files: dict[str, Any] = {
        "run/config.yaml": {**resolve_run([("keys", plain)]), "plugin": ["evil.py"]},
        "study.yaml": {"base": keys, "hyperparameters": {"seed": {"choice": [0, 1]}}},
        "many/comparison.yaml": {**keys, "strategies": ["random"]},
        "moved/transfer.yaml": {"groups": {"a": keys, "b": keys}, "seeds": [0], "control": True},
        "group.yaml": keys,
        "other.yaml": keys,
    }
    del files["many/comparison.yaml"]["steps"]
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(yaml.safe_dump(data))
    return tmp_path


COMMANDS = [
    "search --config group.yaml --dry-run",
    "search --config group.yaml --out new",
    "search --resume --out run --dry-run",
    "search --resume --out run",
    "tune study.yaml --dry-run",
    "tune study.yaml --out new",
    "compare --tables --out many",
    "compare --resume --out many --dry-run",
    "compare --resume --out many",
    "compare --config group.yaml --out new --dry-run",
    "transfer --resume --out moved --dry-run",
    "transfer --resume --out moved",
    "transfer group.yaml other.yaml --out new --dry-run",
    "experiment create study.yaml --out new",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_that_names_a_plugin_runs_nothing(
    command: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(place.rglob("*"))
    assert prefixnas.__main__.main(command.split()) == 2
    said = capsys.readouterr().err
    assert "names 'evil.py', which is code; to run it, say --plugin evil.py" in said
    assert said.count("\n") == 1
    assert sorted(place.rglob("*")) == before


def test_a_replay_asks_for_the_plugin_too(place: Path) -> None:
    record: Any = SimpleNamespace(folder=place / "run")
    with pytest.raises(UserError, match=r"to run it, say --plugin evil\.py"):
        search_again(record, 2, 2)
    assert not (place / "ran").exists()


@pytest.mark.parametrize("command", ["show run", "report run", "stability run run"])
def test_reading_and_drawing_never_look_at_it(command: str, place: Path) -> None:
    (place / "run" / "metrics.jsonl").write_text("")
    prefixnas.__main__.main(command.split())
    assert not (place / "ran").exists()


@pytest.mark.parametrize(
    "command",
    [
        "search --resume --out run --dry-run --plugin evil.py",
        "tune study.yaml --dry-run --plugin evil.py",
        "transfer --resume --out moved --dry-run --plugin evil.py",
    ],
)
def test_a_flag_that_names_it_again_runs_it(command: str, place: Path) -> None:
    assert prefixnas.__main__.main(command.split()) == 0
    assert (place / "ran").exists()


def test_another_plugin_than_the_one_that_was_named_stays_out(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "mine.py").write_text("")
    argv = ["search", "--resume", "--out", "run", "--dry-run", "--plugin", "mine.py", *SMALL[:2]]
    assert prefixnas.__main__.main(argv) == 2
    assert "names 'evil.py'" in capsys.readouterr().err
    assert not (place / "ran").exists()


def test_processes_that_are_started_inherit_what_was_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(TRUSTED, raising=False)
    trust(["a.py"])
    trust(["a.py", "b.py"])
    assert os.environ[TRUSTED].split(os.pathsep) == ["a.py", "b.py"]
