"""Modules in evaluation mode, and back as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluation_mode(*modules: nn.Module | None) -> Iterator[None]:
    """Put modules in evaluation mode, without gradients; each of their parts gets its mode back.

    Args:
        modules: The modules; None stands for one that is not there.
    """
    parts = [part for module in modules if module is not None for part in module.modules()]
    modes = [part.training for part in parts]
    for part in parts:
        part.training = False
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode
