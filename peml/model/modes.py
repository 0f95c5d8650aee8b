"""Contexts that leave a model's modes and the random numbers of their caller as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import nn


@contextmanager
def evaluation_mode(*modules: nn.Module) -> Iterator[None]:
    """Eval mode without gradients for a while; every submodule's own mode comes back."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.train(False)
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in modes:
            part.training = training


def isolated_random(device: torch.device) -> AbstractContextManager[None]:
    """Random numbers drawn inside leave the caller's random streams where they are."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
