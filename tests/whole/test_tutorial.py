"""The tutorial's search: no language model near it, and the page shows what the example does."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from prefixnas.base.errors import UserError
from prefixnas.run.objective import Objective
from prefixnas.run.supervised import SupervisedObjective
from prefixnas.testing import ObjectiveContract
from tests import ROOT
from tests.whole.pages import blocks

EXAMPLE = ROOT / "examples" / "sklearn_search.py"
FOREIGN = ("peml", "transformers", "peft", "accelerate", "datasets", "tokenizers")

SCRIPT = """
import runpy, sys
sys.argv = ["search", "--out", sys.argv[2], "--steps", "60"]
runpy.run_path({example!r}, run_name="__main__")
print("foreign:", *[name for name in {foreign!r} if name in sys.modules])
"""


def test_three_strategies_search_without_any_language_model(tmp_path: Path) -> None:
    code = SCRIPT.format(example=str(EXAMPLE), foreign=FOREIGN)
    done = subprocess.run(
        [sys.executable, "-c", code, "-", str(tmp_path)], capture_output=True, text=True, check=True
    )
    *found, foreign = done.stdout.strip().splitlines()
    assert foreign == "foreign:"
    scores = {line.partition(":")[0]: float(line.split()[1]) for line in found}
    assert set(scores) == {"Darts", "Evolution", "TwoStage"}
    assert all(score > 0.7 for score in scores.values()), scores  # one in ten by chance
    assert all((tmp_path / name / "result.json").is_file() for name in scores)


def definitions(source: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the code of every class, without docstrings of functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and ast.get_docstring(inner) is not None:
                    inner.body = inner.body[1:]
            yield node.name, ast.unparse(node)


def test_the_page_shows_the_example() -> None:
    page = blocks(ROOT / "docs" / "tutorial.md")
    example = dict(definitions(EXAMPLE.read_text()))
    shown = {
        name: code
        for block in page
        if block.language == "python"
        for name, code in definitions(block.text)
    }
    assert shown == example
    space = next(block.text for block in page if block.language == "yaml")
    assert yaml.safe_load(space) == yaml.safe_load((ROOT / "examples" / "digits.yaml").read_text())


class TestSupervisedObjective(ObjectiveContract):
    def objective(self) -> Objective:
        return make()


def make(rows: int = 40) -> SupervisedObjective:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(3 * rows, 6, generator=generator)
    targets = (inputs[:, 0] > 0).long()
    splits = ("train", "selection", "validation")
    parts = zip(splits, inputs.split(rows), targets.split(rows), strict=True)
    return SupervisedObjective({split: (x, y) for split, x, y in parts}, 2, batch_size=16)


def test_an_epoch_holds_every_row_once() -> None:
    objective = make(40)
    objective.reset(None, 3)
    epochs = [[objective._next("train", 40) for _ in range(3)] for _ in range(2)]
    assert [[len(batch) for batch in epoch] for epoch in epochs] == [[16, 16, 8]] * 2
    rows = [torch.cat(epoch) for epoch in epochs]
    assert all(sorted(order.tolist()) == list(range(40)) for order in rows)
    assert not torch.equal(*rows)


def test_loss_and_metric_are_the_users() -> None:
    data = make()._data
    objective = SupervisedObjective(
        {split: (x, y[:, None].float()) for split, (x, y) in data.items()},
        1,
        torch.nn.functional.mse_loss,
        lambda outputs, targets: -float((outputs - targets).abs().max()),
        batch_size=40,
    )
    objective.reset(None, 0)
    (loss,) = objective.backward("selection").values()
    inputs, targets = data["selection"]
    outputs = objective._head(inputs).detach()
    assert loss == pytest.approx(float((outputs[:, 0] - targets).square().mean()))
    expected = -float((outputs[:, 0] - targets).abs().max())
    assert objective.evaluate("selection").score == pytest.approx(expected)


def test_data_that_do_not_fit_are_refused() -> None:
    data = dict(make()._data)
    with pytest.raises(UserError, match="lack the split 'validation'"):
        SupervisedObjective({k: v for k, v in data.items() if k != "validation"}, 2)
    with pytest.raises(UserError, match=r"split 'train' .* \[40, 6\] with \[30\]"):
        SupervisedObjective({**data, "train": (data["train"][0], data["train"][1][:30])}, 2)
