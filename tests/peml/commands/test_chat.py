"""The way of conversations through the commands: train, score, answer, write."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import peml
from peml.__main__ import main
from peml.batches.collate import Collator
from peml.tasks.chat import Conversation
from peml.tasks.load import load_task
from prefixnas.__main__ import main as prefixnas
from tests.peml import chats
from tests.workbench import SMALL, write_lines


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny chat model, conversations, and a run trained on them."""
    folder = tmp_path_factory.mktemp("chats")
    lm = chats.llama()
    lm.model.float().save_pretrained(folder / "model")
    lm.tokenizer.save_pretrained(folder / "model")
    chats.write(folder / "talks.jsonl")
    argv = ["train", "--model", str(folder / "model"), "--tasks", str(folder / "talks.jsonl")]
    argv += ["--space", "mlp", "--baseline", "none", *SMALL, "--prefix-length", "8"]
    assert main([*argv, "--out", str(folder / "run")]) == 0
    return folder


def test_answers_are_those_that_are_scored(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scored, new = tmp_path / "scored.jsonl", tmp_path / "new.jsonl"
    assert main(["evaluate", str(home / "run"), "--predictions", str(scored)]) == 0
    found = [json.loads(line) for line in scored.read_text().splitlines()]
    task = load_task(home / "talks.jsonl")
    asked = [[turn._asdict() for turn in e.turns] for e in task.splits["validation"]]
    write_lines(new, [{"messages": turns, "id": n} for n, turns in enumerate(asked)])
    assert main(["predict", str(home / "run"), str(new), "--out", str(tmp_path / "o.jsonl")]) == 0
    answers = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [row["prediction"] for row in answers] == [row["prediction"] for row in found]
    assert [row["id"] for row in answers] == [0, 1]
    longest = json.loads((home / "run/adapter/peml.json").read_text())["tasks"][0]
    assert longest["chat"] == "auto"
    adapted = peml.load(home / "run", device="cpu")
    wanted = [row["prediction"] for row in found]
    most = longest["longest_answer"]
    assert [text.strip() for text in adapted.generate_all(asked, max_new_tokens=most)] == wanted
    assert Collator(adapted.lm).chat is not None
    capsys.readouterr()


def test_prompts_are_what_the_user_says(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = str(home / "run")

    def written(*argv: str) -> str:
        assert main(["generate", run, *argv, "--max-new-tokens", "3"]) == 0
        return capsys.readouterr().out

    adapted = peml.load(run, device="cpu")
    wanted = adapted.generate([chats.turn("user", "a b")], max_new_tokens=3) + "\n"
    assert written("a b") == written("a b", "--task", "talks") == wanted
    assert (
        written("a b", "--chat", "off")
        == adapted.generate_all(["a b"], chat="off", max_new_tokens=3)[0] + "\n"
    )
    line = json.dumps({"messages": [chats.turn("user", "a b")]})
    monkeypatch.setattr("sys.stdin", io.StringIO(line + "\n"))
    assert json.loads(written("--jsonl"))["generation"] + "\n" == wanted


def test_what_is_wrong_is_one_line_and_nothing_is_lost(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    out = tmp_path / "o.jsonl"
    out.write_text("kept\n")
    bad = write_lines(tmp_path / "bad.jsonl", [{"messages": [chats.turn("usr", "a")]}])
    assert main(["predict", str(home / "run"), str(bad), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "bad.jsonl, line 1, turn 1: unknown role 'usr': did you mean 'user'?" in error
    assert out.read_text() == "kept\n"
    run = tmp_path / "run"
    assert main(["train", "--tasks", str(bad), "--out", str(run)]) == 2
    assert "unknown role 'usr'" in capsys.readouterr().err
    assert not run.exists()


def test_off_is_kept_with_the_adapter(home: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("chat: off\n")  # a boolean to YAML
    argv = ["train", "--config", str(config), "--model", str(home / "model"), *SMALL]
    argv += ["--tasks", str(home / "talks.jsonl"), "--space", "none", "--steps", "1"]
    assert main([*argv, "--baseline", "none", "--out", str(tmp_path / "run")]) == 0
    adapted = peml.load(tmp_path / "run", device="cpu")
    assert not adapted.manifest.talks
    assert adapted.manifest.chat("talks") == "off"


def test_what_was_trained_as_text_is_written_after_as_text(
    home: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    argv = ["train", "--chat", "off", "--model", str(home / "model"), *SMALL]
    argv += ["--tasks", str(home / "talks.jsonl"), "--space", "none", "--steps", "1"]
    assert main([*argv, "--baseline", "none", "--out", str(tmp_path / "run")]) == 0
    read: list[str | Conversation] = []

    def watched(
        collator: Collator, prompts: list[str | Conversation], *args: Any, **kw: Any
    ) -> Any:
        read.extend(prompts)
        return ["" for _ in prompts]

    monkeypatch.setattr("peml.adapters.adapted.write_after", watched)
    turns = [chats.turn("user", "a"), chats.turn("assistant", "b"), chats.turn("user", "a b")]
    line = json.dumps({"messages": turns}) + "\n" + json.dumps({"instruction": "b", "output": "a"})
    for extra in ([], ["--task", "talks"]):
        monkeypatch.setattr("sys.stdin", io.StringIO(line + "\n"))
        assert main(["generate", str(tmp_path / "run"), "--jsonl", *extra]) == 0
        assert main(["generate", str(tmp_path / "run"), "a b", *extra]) == 0
    assert read == ["User: a\n\nAssistant: b\n\nUser: a b\n\nAssistant:", "b", "a b"] * 2
    capsys.readouterr()


def test_records_of_every_shape_are_conversations(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = peml.load(home / "run", device="cpu").generate(
        [chats.turn("system", "b"), chats.turn("user", "a b")], max_new_tokens=3
    )
    turns = [chats.turn("system", "b"), chats.turn("user", "a b")]
    rows = [{"messages": turns}, {"prompt": turns}, {"prompt": turns, "completion": "a"}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    capsys.readouterr()
    assert main(["generate", str(home / "run"), "--jsonl", "--max-new-tokens", "3"]) == 0
    out = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["generation"] for row in out] == [wanted] * 3
    monkeypatch.setattr("sys.stdin", io.StringIO('{"instruction": "a", "input": "b"}\n'))
    assert main(["generate", str(home / "run"), "--jsonl", "--max-new-tokens", "3"]) == 0


def test_epochs_become_steps(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    # 12 conversations: 2 to validate, 1 to select, 9 to train on; gamma makes batches of 1.
    argv = ["search", "--tasks", str(home / "talks.jsonl"), "--gamma", "0.3", "--dry-run"]
    assert prefixnas([*argv, "--epochs", "2.5"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["steps"], shown["epochs"]) == (13, None)  # batches of 2: 5 steps an epoch
    assert prefixnas([*argv, "--epochs", "2", "--steps", "3"]) == 2
    assert "--steps, --epochs: say one of them" in capsys.readouterr().err
    config = tmp_path / "run.yaml"
    config.write_text("epochs: 2\n")
    assert prefixnas([*argv, "--config", str(config)]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["steps"] == 10
    assert prefixnas([*argv, "--config", str(config), "--steps", "7"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["steps"] == 7
    assert prefixnas(["search", "--objective", "tabular", "--epochs", "2", "--dry-run"]) == 2
    assert "key 'epochs': the objective has none" in capsys.readouterr().err
