"""What the optimiser trains, in groups: each part with a learning rate of its own."""

from __future__ import annotations

from typing import Any

from torch import nn

from peml.methods.method import RATE, Attached, Group
from peml.objective.options import LanguageModelOptions
from peml.prefix.encoder import PrefixEncoder
from prefixnas.network.supernet import weights_of

CONCAT = 3e-4
"""Learning rate of a prefix in front of the text, which moves the model from the first step on."""

GATES = 6.0
"""Head gates learn so many times as fast as the rest, divided by the number of attention layers.

Every layer adds what its gates let in, so a deeper model has to open each of them more slowly.
"""


def common_rate(config: LanguageModelOptions) -> float:
    """Return the learning rate that others go by: LoRA's where none is given."""
    return RATE if config.learning_rate is None else config.learning_rate


def prefix_rate(config: LanguageModelOptions, encoder: PrefixEncoder) -> float:
    """Return the learning rate of the prefix and its encoder."""
    if config.prefix_learning_rate is not None:
        return config.prefix_learning_rate
    return common_rate(config) if encoder.attention.head_gates else CONCAT


def gate_rate(config: LanguageModelOptions, layers: int) -> float:
    """Return the learning rate of the head gates of a model with so many attention layers."""
    if config.gate_learning_rate is not None:
        return config.gate_learning_rate
    return GATES * common_rate(config) / layers


def parameter_groups(
    config: LanguageModelOptions,
    method: Attached,
    heads: nn.Module | None,
    encoder: PrefixEncoder | None,
) -> list[dict[str, Any]]:
    """Return the method's groups, one for heads, for the prefix and for its head gates, if any.

    Every rate, also one that was left open, is times `rate_factor`.
    """
    groups = [_group(config, method, group) for group in method.groups()]
    if heads is not None:
        groups.append({"params": list(heads.parameters()), "lr": config.head_learning_rate})
    if encoder is not None:
        own = [encoder.embedding, *encoder.output.parameters()]
        searched = weights_of(encoder.body) if encoder.body is not None else []
        groups.append({"params": [*own, *searched], "lr": prefix_rate(config, encoder)})
        if encoder.head_gates is not None:
            gates = list(encoder.head_gates.parameters())
            groups.append({"params": gates, "lr": gate_rate(config, len(encoder.sites))})
    factor, decay = config.rate_factor, config.weight_decay
    return [{"weight_decay": decay, **group, "lr": factor * group["lr"]} for group in groups]


def _group(config: LanguageModelOptions, method: Attached, group: Group) -> dict[str, Any]:
    asked = config.learning_rate
    rate = (method.method.rate if asked is None else asked) if group.learning_rate is None else None
    made: dict[str, Any] = {"params": list(group.parameters), "lr": rate or group.learning_rate}
    return made if group.weight_decay is None else {**made, "weight_decay": group.weight_decay}
