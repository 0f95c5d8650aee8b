"""Whether what is exported computes what was trained, on examples that it was trained for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from peml.adapters.base import load_base
from peml.adapters.files import LORA
from peml.adapters.load import attach_trained
from peml.adapters.lora import add_adapter
from peml.adapters.manifest import Manifest
from peml.adapters.tensors import check_hashes, read_blocks
from peml.batches.collate import Collator
from peml.model.load import load_with_prefix
from peml.model.model import LanguageModel
from peml.prefix.handle import attach
from peml.tasks.task import Task
from prefixnas.base.errors import UserError
from prefixnas.network.modes import evaluation_mode

TOLERANCES = {torch.float64: 1e-4, torch.float32: 1e-3}
_COARSE = 0.1
_MOST = 8
_ANY: Mapping[str, Sequence[int]] = {"prompt": (1, 2, 3, 4), "answer": (2, 3)}


def some_examples(collator: Collator, tasks: Sequence[Task]) -> list[dict[str, list[int]]]:
    """Return token ids of a few validation examples, which an adapter keeps for exports."""
    firsts = [(task, e) for task in tasks for e in task.splits["validation"][:2]]
    encoded = [collator.encode(task, example) for task, example in firsts[:_MOST]]
    return [{"prompt": list(ids.prompt), "answer": list(ids.answer)} for ids in encoded]


def trained_outputs(
    folder: Path,
    manifest: Manifest,
    device: str | torch.device,
    dtype: str,
    task: str | None = None,
) -> list[Tensor]:
    """Return what the model computes as it was trained: with its method apart from its weights.

    Raises:
        UserError: The folder, or the base model that it names, can't be loaded.
    """
    check_hashes(folder, manifest)
    lm = load_base(folder, manifest, device, dtype, whole=True)
    if manifest.lora is not None:
        lm = replace(lm, model=add_adapter(lm.model, folder / LORA, manifest.lora))
    attach_trained(lm, folder, manifest)
    with lm.on(task) if task is not None else nullcontext():
        return outputs(lm, manifest, read_blocks(folder, manifest))


def check_written(
    model: Path,
    manifest: Manifest,
    blocks: Tensor | None,
    expected: Sequence[Tensor],
    device: str | torch.device,
    dtype: str,
) -> None:
    """Compare a model folder that was written with what it should compute.

    Raises:
        UserError: They differ by more than rounding does.
    """
    compare_outputs(load_with_prefix(model, device=device, dtype=dtype), manifest, blocks, expected)


def compare_outputs(
    lm: LanguageModel, manifest: Manifest, blocks: Tensor | None, expected: Sequence[Tensor]
) -> None:
    """Compare what a model computes with what it should.

    Raises:
        UserError: They differ by more than rounding does.
    """
    tolerance = TOLERANCES.get(lm.model.dtype, _COARSE)
    for wanted, found in zip(expected, outputs(lm, manifest, blocks), strict=True):
        scale = max(1.0, float(wanted.abs().max()))
        difference = float((wanted - found).abs().max()) / scale
        if not difference <= tolerance:
            raise UserError(
                f"the exported {manifest.architecture} model is not the one that was trained: its "
                f"outputs differ by {difference:.1e} of their size"
            )


@torch.no_grad()
def outputs(lm: LanguageModel, manifest: Manifest, blocks: Tensor | None) -> list[Tensor]:
    """Return logits, or an encoder's hidden states, of the adapter's examples."""
    handle = None
    if blocks is not None:
        handle = attach(lm.model, manifest.sites, manifest.attention)
        handle.set(blocks)
    collator = Collator(lm)
    found = []
    with evaluation_mode(lm.model):
        for example in manifest.examples or (_ANY,):
            prompt, answer = tuple(example["prompt"]), tuple(example["answer"])
            inputs = {"input_ids": torch.tensor([prompt])}
            if lm.family == "decoder":
                inputs = {"input_ids": torch.tensor([prompt + answer])}
            elif lm.family == "encoder-decoder":
                inputs["decoder_input_ids"] = collator.decoder_inputs([answer])
            given = {name: tensor.to(lm.device) for name, tensor in inputs.items()}
            found.append(lm.model(**given)[0].detach().float().cpu())
    if handle is not None:
        handle.detach()
    return found
