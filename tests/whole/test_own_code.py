"""A user's own code in whole commands: operations, spaces, objectives."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from prefixnas.__main__ import main
from prefixnas.run.objective import OBJECTIVES
from tests import ROOT, forked
from tests.workbench import SMALL, events, python


def test_a_custom_operation_in_a_custom_space(bench: Path, tmp_path: Path) -> None:
    argv = ["search", "--model", str(bench / "llama"), "--tasks", str(bench / "mood"), *SMALL]
    argv += ["--plugin", str(ROOT / "examples/custom_operation.py"), "--baseline", "none"]
    argv += ["--space", str(ROOT / "examples/custom_space.yaml"), "--out", "run"]
    done = forked.run("-m", "prefixnas", *argv, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    alphas = events(tmp_path / "run", "alpha")[-1]["probabilities"]
    assert isinstance(alphas, dict)
    for options in alphas.values():
        assert "sine" in options and len(options) == 4
    chosen = yaml.safe_load((tmp_path / "run/architecture.yaml").read_text())
    assert chosen["space"] == "sines" and len(chosen["choices"]) == 4


TOY = '''
from dataclasses import dataclass
from prefixnas.base.options import option
from prefixnas.run.objective import ObjectiveConfig, register_objective
from prefixnas.testing import ToyObjective

@register_objective("toy")
@dataclass(frozen=True)
class Toy(ObjectiveConfig):
    """Two regressions."""

    inputs: int = option(8, "width of the inputs", at_least=1)

    def build(self, total_steps, seed):
        return ToyObjective(self.inputs)
'''


def test_an_objective_without_the_base_class_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(OBJECTIVES._registered, "bare", type("Bare", (), {}))
    assert main(["search", "--objective", "bare", "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "Bare must derive from prefixnas.ObjectiveConfig" in error


def test_an_objective_of_ones_own_needs_no_peml(tmp_path: Path) -> None:
    (tmp_path / "toy.py").write_text(TOY)
    argv = ["search", "--plugin", "toy.py", "--objective", "toy", "--inputs", "6", "--steps", "8"]
    argv += ["--strategy", "darts", "--out", "run"]
    code = f"""
import sys
from prefixnas.__main__ import main
from tests.plots import left_out
with left_out():
    assert main({argv}) == 0
assert main({[*argv, "--lora-rank", "3"]}) == 2
strange = {{name.split(".")[0] for name in sys.modules}} & {{"peml", "transformers", "peft"}}
assert not strange, strange
"""
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "error: unknown argument '--lora-rank'"
    assert "linear alone" in done.stdout
    kept = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert (kept["objective"], kept["inputs"]) == ("toy", 6)
    assert len(events(tmp_path / "run", "step")) == 16
