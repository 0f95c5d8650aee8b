from __future__ import annotations

from typing import Any

import pytest
import torch

from peml.answers.heads import TaskHeads, pool
from prefixnas.base.errors import UserError
from tests.peml import tiny


def test_pooling_ignores_padding() -> None:
    hidden = torch.tensor([[[1.0], [3.0], [100.0]], [[2.0], [100.0], [100.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    assert pool(hidden, mask, "mean").tolist() == [[2.0], [2.0]]
    assert pool(hidden, mask, "cls").tolist() == [[1.0], [2.0]]


def test_outputs_by_task() -> None:
    heads = TaskHeads(8, {"a": 3, "train": 2, "keys": 1})
    hidden, mask = torch.randn(4, 5, 8), torch.ones(4, 5)
    assert heads("a", hidden, mask).shape == (4, 3)
    assert heads("train", hidden, mask).shape == (4, 2)
    assert heads("keys", hidden, mask).shape == (4, 1)


def test_regression_speaks_in_the_labels_units() -> None:
    task = tiny.task_of("r", [("a", "4.0"), ("b", "1.0")], kind="regression")
    heads = TaskHeads.for_tasks(8, [task])
    with torch.no_grad():
        heads.layers["task_r"].weight.zero_()
        heads.layers["task_r"].bias.fill_(2.0)
    assert heads("r", torch.randn(1, 2, 8), torch.ones(1, 2)).tolist() == [[2.5 + 2 * 1.5]]


def test_reset_by_seed() -> None:
    heads = TaskHeads(8, {"a": 3}, seed=1)
    before = heads.state_dict()["layers.task_a.weight"].clone()
    heads.reset(2)
    assert not torch.equal(before, heads.state_dict()["layers.task_a.weight"])
    heads.reset(1)
    assert torch.equal(before, heads.state_dict()["layers.task_a.weight"])


def test_state_holds_the_scales() -> None:
    task = tiny.task_of("r", [("a", "4.0"), ("b", "1.0")], kind="regression")
    saved = TaskHeads.for_tasks(8, [task]).state_dict()
    loaded = TaskHeads(8, {"r": 1})
    loaded.load_state_dict(saved)
    assert [float(value) for value in loaded.scale("r")] == [2.5, 1.5]


def test_half_precision_hidden_states_are_raised() -> None:
    heads = TaskHeads(8, {"a": 3})
    outputs = heads("a", torch.randn(1, 2, 8).bfloat16(), torch.ones(1, 2))
    assert outputs.dtype == torch.float32


def test_unknown_pooling() -> None:
    pooling: Any = "max"
    with pytest.raises(UserError, match="unknown pooling 'max'"):
        TaskHeads(8, {"a": 3}, pooling=pooling)


def test_more_choices_than_outputs_are_refused() -> None:
    heads = TaskHeads(8, {"own": 2})
    assert heads.places("own", ("a", "b")) == [0, 1]
    with pytest.raises(UserError, match=r"'own': an example has 3 choices.* trained for 2 at most"):
        heads.places("own", ("a", "b", "c"))
