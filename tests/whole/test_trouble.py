"""What a run says of trouble that shows in its data alone: a loss that is none, cut prompts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import peml.__main__
import prefixnas.__main__
from prefixnas.run.checkpoint import load_checkpoint
from tests.workbench import SMALL, events, write_lines

ROW = {"input": "film good", "choices": ["yes", "no"], "label": 0}

NAN_OPERATION = """
from torch import nn
from prefixnas.space.ops import register_op

@register_op("nan-later")
class NanLater(nn.Module):
    def __init__(self, calls):
        super().__init__()
        self.left = calls

    def forward(self, hidden):
        self.left -= self.training
        return hidden if self.left >= 0 else hidden * float("nan")
"""


@pytest.fixture
def at_bench(bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bench)


def finite(value: object) -> bool:
    if isinstance(value, dict):
        return all(finite(item) for item in value.values())
    if isinstance(value, list):
        return all(finite(item) for item in value)
    return not isinstance(value, torch.Tensor) or bool(value.isfinite().all())


def test_a_loss_that_turns_nan_stops_and_keeps_the_last_good_checkpoint(
    at_bench: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    argv = ["search", "--model", "llama", "--tasks", "mood", "order", *SMALL, "--out", str(run)]
    argv += ["--steps", "12", "--checkpoint-every", "1", "--warmup", "0"]
    (tmp_path / "nan_later.py").write_text(NAN_OPERATION)
    (tmp_path / "space.yaml").write_text(
        "name: n\nseq: [linear, {choice: {key: a, options: [relu, tanh]}}, {nan-later: 3}]\n"
    )
    argv += ["--plugin", str(tmp_path / "nan_later.py"), "--space", str(tmp_path / "space.yaml")]
    argv.append("--quiet")
    assert prefixnas.__main__.main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert "step 3" in error and "'mood'" in error and "'search'" in error
    state = load_checkpoint(run / "checkpoint")
    assert state is not None
    assert state["position"]["phase"] == "search"
    assert state["position"]["step"] == 2
    assert finite(state)
    assert [event["step"] for event in events(run, "step")] == [0, 1, 2]
    assert not (run / "result.json").exists()
    assert prefixnas.__main__.main(["show", str(run)]) == 0
    assert "not finished" in capsys.readouterr().out


def test_cut_prompts_are_counted_in_a_warning_and_in_the_report(
    at_bench: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = {**ROW, "input": "a b c d " * 20 + "good"}
    write_lines(tmp_path / "long/train.jsonl", [ROW, long, ROW, long, long, ROW])
    write_lines(tmp_path / "long/validation.jsonl", [ROW, long])
    run = tmp_path / "run"
    tasks = ["mood", str(tmp_path / "long")]
    argv = ["search", "--model", "llama", "--tasks", *tasks, *SMALL, "--out", str(run)]
    assert prefixnas.__main__.main(argv) == 0
    said = "long: 4 of 8 prompts"
    assert said in capsys.readouterr().err
    assert sum(said in str(event["message"]) for event in events(run, "warning")) == 1
    assert said in (run / "report.html").read_text()
    assert prefixnas.__main__.main(["show", str(run)]) == 0
    assert said in " ".join(capsys.readouterr().out.split())
    assert peml.__main__.main(["evaluate", str(run)]) == 0
    assert "long: 1 of" in capsys.readouterr().err
