"""lm-eval scores an export as `peml evaluate` does; it is no dependency, so this may be skipped."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import peml
from peml.__main__ import main
from tests import ROOT

pytest.importorskip("lm_eval", reason="lm-eval is not installed")


@pytest.mark.parametrize("format", ["peft", "peml"])
def test_lm_eval_gives_the_same_scores(
    format: str,
    trained: Callable[[str], Path],
    bench: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["harness.py"])
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    from harness import harness_scores  # type: ignore[import-not-found]

    peml.export(trained("llama"), tmp_path / "out", format)
    sources = [str(bench / "mood"), str(bench / "order")]
    capsys.readouterr()
    assert main(["evaluate", str(trained("llama")), "--json"]) == 0
    ours = json.loads(capsys.readouterr().out)["scores"]
    theirs = harness_scores(tmp_path / "out", sources)
    assert theirs == {task: metrics["accuracy"] for task, metrics in ours.items()}
    assert len(theirs) == 2
