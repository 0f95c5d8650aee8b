"""The head multiplies all rows of a batch in one product, whatever positions are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from peml.model.forward import last_logits
from peml.model.load import load_language_model
from tests.peml import zoo
from tests.peml.model.test_model import saved

DECODERS = [kind for kind in zoo.SUPPORTED if zoo.family(kind) == "decoder"]
BATCHED = torch.ops.aten.bmm.default


class Products(TorchDispatchMode):
    """Notes the operations that read something as wide as the vocabulary."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.found: list[Any] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        shapes = [each.shape for each in args if isinstance(each, torch.Tensor)]
        if any(self.width in shape for shape in shapes):
            self.found.append(func)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", DECODERS)
def test_the_vocabulary_is_multiplied_once_for_all_rows(kind: str, tmp_path: Path) -> None:
    lm = load_language_model(saved(kind, tmp_path))
    given = zoo.inputs(kind)
    head = lm.model.get_output_embeddings()
    assert head is not None
    embedded = lm.model.get_input_embeddings()(given["input_ids"]).requires_grad_()
    inputs = {**given, "inputs_embeds": embedded}
    del inputs["input_ids"]
    with Products(head.weight.shape[0]) as seen:
        last_logits(lm.model, inputs, 2).sum().backward()
    assert embedded.grad is not None and embedded.grad.any()
    assert seen.found and BATCHED not in seen.found
    apart = zoo.build(kind).float()
    torch.testing.assert_close(last_logits(lm.model, given, 2), last_logits(apart, given, 2))


def test_without_it_torch_multiplies_row_by_row() -> None:
    lm = zoo.language_model("llama")
    head = lm.model.get_output_embeddings()
    with Products(head.weight.shape[0]) as seen:
        last_logits(lm.model, zoo.inputs("llama"), 2)
    assert BATCHED in seen.found, "torch folds slices by itself: the hook can go"
