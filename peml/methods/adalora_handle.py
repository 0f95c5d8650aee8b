"""AdaLoRA's layers inside a model: LoRA whose ranks are reallocated while it trains."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import peft
import torch
from torch import Tensor

from peml.methods.lora_handle import ADAPTER, LoraHandle

_IMPORTANCES = ("ipt", "exp_avg_ipt", "exp_avg_unc")
"""What PEFT's allocator of ranks goes by, as it calls it."""


class AdaLoraHandle(LoraHandle):
    """AdaLoRA's layers inside a model; made by `add_lora`."""

    rewrites_weights = True

    def __init__(self, wrapped: peft.PeftModel, kind: str, rank: int) -> None:
        for name, parameter in wrapped.get_base_model().named_parameters():
            # PEFT means the rank to be a constant and does not save it, but lets it train.
            if "ranknum" in name:
                parameter.requires_grad_(False)
        super().__init__(wrapped, kind, rank)

    def reset(self, seed: int) -> None:
        """Go back to a fresh start, with all ranks."""
        super().reset(seed)
        self.config.rank_pattern = None
        self._allocator.reset_ipt()

    def draw(self, layer: Any) -> None:
        """Draw the factors of a layer of PEFT's."""
        layer.reset_lora_parameters(ADAPTER)

    def step_loss(self) -> Tensor:
        """Return the term that keeps singular vectors orthogonal, weighted.

        The mean of ``||P P^T - I||_F`` over all left and right factors, times
        ``orth_reg_weight``. PEFT adds it in its own forward pass only, which we do not use.
        """
        terms = []
        for name, factor in self.weights_by_name.items():
            if "lora_A" in name or "lora_B" in name:
                gram = factor @ factor.T if "lora_A" in name else factor.T @ factor
                eye = torch.eye(gram.shape[0], device=gram.device, dtype=gram.dtype)
                terms.append(torch.linalg.matrix_norm(gram - eye))
        return torch.stack(terms).mean() * float(self.config.orth_reg_weight)

    def stepped(self, step: int) -> None:
        """Reallocate ranks: after ``optimizer.step()``, before ``zero_grad()``.

        Args:
            step: How many optimiser steps were done before this one, from 0.
        """
        tuner: Any = self.wrapped.base_model
        tuner.update_and_allocate(step)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and JSON values to go on from: weights, and running importances."""
        return {
            **super().state_dict(),
            "importance": {name: dict(getattr(self._allocator, name)) for name in _IMPORTANCES},
            "rank_pattern": self.config.rank_pattern,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""
        super().load_state_dict(state)
        for name in _IMPORTANCES:
            saved = state.get("importance", {}).get(name, {})
            setattr(self._allocator, name, {key: each.clone() for key, each in saved.items()})
        self.config.rank_pattern = state["rank_pattern"]

    def save(self, folder: str | Path) -> None:
        """Write a plain PEFT adapter folder, of the full rank.

        Pruned ranks are zeros already. Cutting them out, as PEFT would, loses the scale that
        belongs to the full rank.
        """
        pattern, self.config.rank_pattern = self.config.rank_pattern, None
        try:
            super().save(folder)
        finally:
            self.config.rank_pattern = pattern

    @property
    def _allocator(self) -> Any:
        tuner: Any = self.wrapped.base_model
        return tuner.rankallocator
