"""What the optimiser trains, in groups: each part with a learning rate of its own."""

from __future__ import annotations

from typing import Any

from torch import nn

from peml.lora import LoraHandle
from peml.objective.options import LanguageModelOptions
from peml.prefix.encoder import PrefixEncoder
from prefixnas.network.supernet import weights_of

CONCAT = 3e-4
"""Learning rate of a prefix in front of the text, which moves the model from the first step on."""

GATES = 6.0
"""Head gates learn so many times as fast as LoRA, divided by the number of attention layers.

Every layer adds what its gates let in, so a deeper model has to open each of them more slowly.
"""


def prefix_rate(config: LanguageModelOptions, encoder: PrefixEncoder) -> float:
    """Return the learning rate of the prefix and its encoder."""
    if config.prefix_learning_rate is not None:
        return config.prefix_learning_rate
    return config.learning_rate if encoder.attention.head_gates else CONCAT


def gate_rate(config: LanguageModelOptions, layers: int) -> float:
    """Return the learning rate of the head gates of a model with so many attention layers."""
    if config.gate_learning_rate is not None:
        return config.gate_learning_rate
    return GATES * config.learning_rate / layers


def parameter_groups(
    config: LanguageModelOptions,
    lora: LoraHandle,
    heads: nn.Module | None,
    encoder: PrefixEncoder | None,
) -> list[dict[str, Any]]:
    """Return a group for LoRA, one for heads, for the prefix and for its head gates, if any."""
    groups: list[dict[str, Any]] = [{"params": lora.parameters(), "lr": config.learning_rate}]
    if heads is not None:
        groups.append({"params": list(heads.parameters()), "lr": config.head_learning_rate})
    if encoder is not None:
        own = [encoder.embedding, *encoder.output.parameters()]
        searched = weights_of(encoder.body) if encoder.body is not None else []
        groups.append({"params": [*own, *searched], "lr": prefix_rate(config, encoder)})
        if encoder.head_gates is not None:
            gates = list(encoder.head_gates.parameters())
            groups.append({"params": gates, "lr": gate_rate(config, len(encoder.sites))})
    return [{**group, "weight_decay": config.weight_decay} for group in groups]
