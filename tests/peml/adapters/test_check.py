"""What an export is compared with is the model as it was trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from peml.adapters.check import trained_outputs
from peml.adapters.manifest import Manifest
from tests.peml.adapters.trained import trained


@pytest.mark.parametrize("attention", ["parallel", "concat"])
def test_the_prefix_is_read_as_in_training(attention: str, tmp_path: Path) -> None:
    lm, adapter = trained("llama", tmp_path, attention=attention)
    (found,) = trained_outputs(adapter, Manifest.read(adapter), "cpu", "float64")
    with torch.no_grad():
        wanted = lm.model.eval()(input_ids=torch.tensor([[1, 2, 3, 4, 2, 3]])).logits
    assert torch.allclose(found, wanted.float(), atol=1e-5)
