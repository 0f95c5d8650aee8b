"""Adapters of tiny models, as a run would leave them, and what they must compute."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

import peml
from peml.adapters.adapted import Adapted
from peml.adapters.save import save_adapter
from peml.answers.heads import TaskHeads
from peml.methods.peft_lora import add_lora
from peml.methods.targets import linear_modules
from peml.model.load import load_language_model
from peml.model.model import LanguageModel
from peml.prefix.handle import attach
from peml.prefix.sites import find_sites
from tests.peml import zoo
from tests.peml.model.test_model import saved

KINDS = ("llama", "sliding", "gpt2", "t5", "bart", "bert")


def trained(
    kind: str,
    tmp_path: Path,
    lora: str = "lora",
    where: list[str] | None = None,
    attention: str = "parallel",
    *,
    every: bool = False,
) -> tuple[LanguageModel, Path]:
    """Save a base model and an adapter of it; return the model as it was trained, in float64."""
    base = saved(kind, tmp_path / "base")
    lm = load_language_model(base, dtype="float64")
    shared = lm.model.get_output_embeddings() is not None and kind in ("gpt2", "t5")
    linear = {n.split(".")[-1] for n in linear_modules(lm.model)}
    targets = sorted(linear - ({"lm_head"} if shared else set())) if every else None
    handle = add_lora(lm, lora, rank=4, dropout=0.1, total_steps=9, targets=targets)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in handle.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    prefix = attach(lm.model, find_sites(lm.model, where), attention)
    blocks = zoo.random_blocks(prefix.sites).float()
    save_adapter(
        tmp_path / "adapter",
        lm,
        sites=prefix.sites,
        blocks=blocks,
        attention=attention,
        method=handle,
        heads=heads() if lm.family == "encoder" else None,
        tasks=[{"name": "sst2", "choices": ["yes", "no"]}],
    )
    prefix.set(blocks)
    return lm, tmp_path / "adapter"


def heads() -> TaskHeads:
    return TaskHeads(32, {"sst2": 2, "stsb": 1}, pooling="cls", seed=8)


def load(folder: Path) -> Adapted:
    return peml.load(folder, dtype="float64")


def assert_same(first: LanguageModel | Adapted, second: Adapted | LanguageModel, kind: str) -> None:
    """Same logits and same generated tokens; both models compute in float64."""
    given = zoo.inputs(kind)
    one, two = zoo.output(first.model, given), zoo.output(second.model, given)
    torch.testing.assert_close(two, one, atol=1e-6, rtol=1e-6)
    if first.family != "encoder":
        assert torch.equal(*(generated(lm.model, given) for lm in (first, second)))


def generated(model: nn.Module, given: dict[str, Tensor]) -> Tensor:
    source = {"input_ids": given["input_ids"]}
    tokens: Tensor = model.generate(  # type: ignore[operator]
        **source, max_new_tokens=5, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    return tokens
