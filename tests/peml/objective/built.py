"""Objectives on tiny models, with a supernet around them; and what they compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peml.objective.config import LanguageModelConfig
from peml.objective.objective import JointObjective
from peml.tasks.examples import Example
from peml.tasks.task import Task
from prefixnas.network.supernet import Supernet
from prefixnas.run.objective import fit_space
from prefixnas.space.nodes import Choice, Seq, Stack
from prefixnas.space.space import SearchSpace

FAMILIES = ["llama", "t5", "bert"]
CONCAT: dict[str, Any] = {"prefix_attention": "concat", "prefix_start": None}
SPACE = SearchSpace(
    "small",
    Stack(2, Seq("linear", Choice("activation", ["relu", "tanh", "gelu"]), "layer_norm")),
)

GATED = SearchSpace(
    "gated",
    Seq("linear", Choice("activation", ["relu", "tanh", "gelu"])),
    [Stack("attention_layers", Choice("gate", ["on", "off"]), name="attention")],
    {"attention_layers": 1},
)

"""A gate under alpha for every attention layer."""


def config(bench: Path, family: str = "llama", **options: Any) -> LanguageModelConfig:
    defaults: dict[str, Any] = {
        "model": str(bench / family),
        "tasks": [str(bench / "mood"), str(bench / "order")],
        "prefix_length": 3,
        "prefix_start": "random",
        "lora_rank": 2,
        "lora_dropout": 0.0,
        "batch_size": 4,
    }
    return LanguageModelConfig(**{**defaults, **options})


def ready(
    bench: Path,
    family: str = "llama",
    *,
    double: bool = False,
    space: SearchSpace = SPACE,
    **options: Any,
) -> tuple[JointObjective, Supernet]:
    """An objective with a supernet in its place, in float64 if exactness counts."""
    objective = JointObjective(config(bench, family, **options), total_steps=20, seed=0)
    torch.manual_seed(1)
    net = Supernet(fit_space(space, objective), objective.width)
    objective.reset(net, 0)
    with torch.no_grad():  # LoRA's B starts at zero, which would hide A's gradient
        for parameter in objective.method.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        open_gates(objective)
    if double:
        assert objective.prefix.encoder is not None
        for module in (objective.lm.model, objective.prefix.encoder, objective.heads):
            if module is not None:
                module.double()
    return objective, net


def open_gates(objective: JointObjective) -> None:
    """Open the head gates, which start at zero and hide the gradient of all behind them."""
    assert objective.prefix.encoder is not None
    if objective.prefix.encoder.head_gates is not None:
        nn.init.constant_(objective.prefix.encoder.head_gates.weight, 0.5)


def weights(objective: JointObjective, net: Supernet) -> list[nn.Parameter]:
    own = [p for group in objective.parameters() for p in group["params"]]
    return [*own, *net.alphas]


def gradients(objective: JointObjective, net: Supernet) -> list[Tensor]:
    found = []
    for parameter in weights(objective, net):
        assert parameter.grad is not None
        found.append(parameter.grad.clone())
        parameter.grad = None
    return found


def off(model: nn.Module) -> None:
    """Switch dropout off for good: rows in one batch and rows alone draw other masks."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "attention_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def example_loss(objective: JointObjective, task: Task, example: Example) -> Tensor:
    """The loss of one example alone: no padding, the whole vocabulary head, stock arguments."""
    encoder, lm, collator = objective.prefix.encoder, objective.lm, objective.collator
    assert encoder is not None
    ids = collator.encode(task, example)
    prefix = encoder.prefix()
    with objective.prefix.handle.using(prefix.blocks, prefix.gates):
        if lm.family == "encoder":
            assert objective.heads is not None
            tokens = torch.tensor([ids.prompt])
            hidden = lm.model(input_ids=tokens).last_hidden_state
            outputs = objective.heads(task.name, hidden, torch.ones_like(tokens))
            return F.cross_entropy(outputs, torch.tensor([int(example.label)]))
        answer = torch.tensor([ids.answer])
        if lm.family == "decoder":
            tokens = torch.tensor([ids.prompt + ids.answer])
            logits = lm.model(input_ids=tokens).logits[:, len(ids.prompt) - 1 : -1]
        else:
            prompt = torch.tensor([ids.prompt])
            logits = lm.model(input_ids=prompt, labels=answer).logits
        weights = collator.batch(task, [example]).weights
        assert weights is not None
        losses = F.cross_entropy(logits[0], answer[0], reduction="none") * weights[0]
        return losses.sum() / (weights == 1).sum()
