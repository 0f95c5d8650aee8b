from __future__ import annotations

import pytest
import torch
from torch import nn

from prefixnas.network.modes import evaluation_mode


def test_every_module_gets_its_own_mode_back_after_an_error() -> None:
    first, second = nn.Sequential(nn.Dropout(0.5), nn.Linear(1, 1)).train(), nn.Linear(1, 1)
    first[1].eval()
    second.eval()
    modules = [*first.modules(), *second.modules()]
    before = [module.training for module in modules]
    with pytest.raises(ZeroDivisionError), evaluation_mode(first, second):
        assert not any(module.training for module in modules)
        _ = 1 / 0
    assert [module.training for module in modules] == before


def test_evaluation_keeps_no_gradient() -> None:
    layer = nn.Linear(1, 1)
    with evaluation_mode(layer):
        assert not layer(torch.ones(1)).requires_grad
    assert layer(torch.ones(1)).requires_grad
