"""A cheaper version of a language-model problem: fewer layers, fewer examples, shorter inputs."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import nn
from transformers import PreTrainedModel

from peml.model.model import LanguageModel
from peml.model.quantize import kept_aside
from peml.objective.options import LanguageModelOptions
from peml.prefix.sites import find_sites
from peml.tasks.splits import take
from peml.tasks.task import Task
from prefixnas.base.errors import UserError
from prefixnas.multitrial.proxy import KEY, whole_numbers

LAYERS, TRAIN, MAX_LENGTH = "layers", "train", "max_length"
SETTINGS = (LAYERS, TRAIN, MAX_LENGTH)


def skeleton(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of a model's modules around the very same tensors: no second copy of weights.

    What is put into the copy afterwards (LoRA, a prefix) is not in the model.
    """
    held = [*model.parameters(), *model.buffers(), *kept_aside(model)]
    shared = {id(each): each for each in held}
    return copy.deepcopy(model, shared)


def stacks(model: PreTrainedModel) -> list[nn.ModuleList]:
    """Return a model's lists of layers: the outermost lists around attention modules."""
    found: dict[int, nn.ModuleList] = {}
    for site in find_sites(model):
        parts = site.path.split(".")
        parents = (model.get_submodule(".".join(parts[:end])) for end in range(1, len(parts)))
        stack = next((module for module in parents if isinstance(module, nn.ModuleList)), None)
        if stack is not None:
            found[id(stack)] = stack
    return list(found.values())


def read_settings(
    settings: Mapping[str, str], model: PreTrainedModel, config: LanguageModelOptions
) -> dict[str, int]:
    """Check and convert the settings of a proxy.

    Args:
        settings: As the user gave them.
        model: The model.
        config: The options of the whole problem.

    Raises:
        UserError: Unknown setting, no number, or more than the whole problem has.
    """
    numbers = whole_numbers(settings, SETTINGS)
    most = {LAYERS: max(map(len, stacks(model))), MAX_LENGTH: config.max_length}
    for name, limit in most.items():
        if limit is not None and numbers.get(name, 0) > limit:
            whole = "the model has" if name == LAYERS else "the run has"
            raise UserError(f"{KEY}: {name} is {numbers[name]}, {whole} {limit}")
    if numbers.get(MAX_LENGTH, 2) < 2:
        raise UserError(f"{KEY}: {MAX_LENGTH} must be at least 2")
    return numbers


def fewer_examples(tasks: Sequence[Task], limit: int | None) -> list[Task]:
    """Return the tasks with at most so many training examples each, drawn by the task's name."""
    return [
        replace(
            task,
            splits={**task.splits, "train": tuple(take(task.splits["train"], limit, task.name))},
        )
        for task in tasks
    ]


def cut_model(lm: LanguageModel, bare: PreTrainedModel, layers: int | None) -> LanguageModel:
    """Return a language model with a skeleton of its own and the first layers alone.

    Args:
        lm: The language model.
        bare: Its model before anything was put into it.
        layers: How many layers stay, of an encoder-decoder as many of both; None: all.
    """
    model = skeleton(bare)
    for stack in stacks(model) if layers is not None else ():
        del stack[layers:]
    return replace(lm, model=model)
