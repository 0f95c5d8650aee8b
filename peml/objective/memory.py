"""What training a method and a prefix takes in memory at least, before either of them is made."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from peml.batches.collate import Collator
from peml.batches.sampler import batch_size_of
from peml.methods.method import Method
from peml.model.model import LanguageModel
from peml.objective.options import LanguageModelOptions
from peml.prefix.encoder import PrefixEncoder
from peml.prefix.sites import Site
from peml.tasks.task import Task
from prefixnas.base.memory import TRAINED, memory_of_machine, refuse_beyond

_COPIES = 4
"""Of the prefix in a step: the constant start, the output, the leaf, the leaf's gradient."""

_KEPT = 8
"""Vectors of the model's width that the backward pass needs of a token in a layer, at least."""


def check_memory(
    config: LanguageModelOptions,
    method: Method,
    lm: LanguageModel,
    tasks: Sequence[Task],
    collator: Collator,
    sites: Sequence[Site],
) -> None:
    """Refuse a run that cannot fit; the searched module is counted by `RunPlan.fit`.

    Raises:
        UserError: Names the estimate and what there is.
    """
    needed = {
        method.label: method.size(lm, len(tasks)) * TRAINED,
        "the prefix": _of_prefix(config, lm, sites),
        "batches": max(_of_batch(config, lm, task, collator) for task in tasks),
    }
    if lm.device.type == "cuda":
        has = torch.cuda.get_device_properties(lm.device).total_memory
        refuse_beyond(needed, has, f"the GPU {lm.device}")
    else:
        refuse_beyond(needed, memory_of_machine())


def _of_prefix(config: LanguageModelOptions, lm: LanguageModel, sites: Sequence[Site]) -> int:
    width = config.prefix_width or lm.hidden_size
    with torch.device("meta"):
        encoder = PrefixEncoder(
            config.prefix_length, width, None, sites, attention=config.prefix_attention
        )
    weights = sum(weight.numel() for weight in encoder.parameters())
    return weights * TRAINED + encoder.start.numel() * encoder.start.element_size() * _COPIES


def _of_batch(
    config: LanguageModelOptions, lm: LanguageModel, task: Task, collator: Collator
) -> int:
    """Estimate what a forward pass keeps of one task's batch for the backward pass."""
    lengths = collator.lengths(task)
    rows = min(config.batch_size, len(lengths))
    if config.sampling == "gamma":
        gamma = config.gamma if task.gamma is None else task.gamma
        rows = batch_size_of(gamma, len(lengths), config.batch_size)
    rows = min(rows, config.micro_batch_size or rows)
    layers = 1 if config.gradient_checkpointing else _layers(lm)
    tokens = rows * sum(lengths) // max(1, len(lengths))
    return tokens * layers * lm.hidden_size * _KEPT * torch.finfo(lm.model.dtype).bits // 8


def _layers(lm: LanguageModel) -> int:
    return int(getattr(lm.model.config.get_text_config(), "num_hidden_layers", 1))
