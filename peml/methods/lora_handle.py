"""PEFT's LoRA layers inside a model, as an attached method."""

from __future__ import annotations

import shutil
from bisect import bisect_left
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import peft
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from peft.utils.save_and_load import get_peft_model_state_dict, set_peft_model_state_dict

from peml.methods.lora_kinds import LORA_KINDS, first_rank
from peml.methods.method import Attached, Group, Method
from peml.model.device import isolated_random
from prefixnas.base.tensors import check_tensors, read_tensors

ADAPTER = "default"
"""What PEFT calls the adapter of a model that has one."""


class LoraHandle(Attached):
    """LoRA layers inside a model; made by `add_lora`.

    The model object stays the same: its projections are wrapped in place, so ``lm.model(...)``
    and ``lm.model.generate`` use the low-rank updates.
    """

    of_rank: Callable[[int], Method] | None = None
    """Makes the method with another rank."""

    def __init__(self, wrapped: peft.PeftModel, kind: str, rank: int) -> None:
        self.kind, self.rank, self.wrapped = kind, rank, wrapped
        self.weights_by_name = {
            name: parameter
            for name, parameter in wrapped.get_base_model().named_parameters()
            if parameter.requires_grad
        }
        # DoRA's magnitudes start at the norms of the base weights, whatever the seed.
        self._magnitudes = {
            name: parameter.detach().clone()
            for name, parameter in self.weights_by_name.items()
            if "lora_magnitude_vector" in name
        }

    def groups(self) -> list[Group]:
        """Everything that trains, in a fixed order."""
        return [Group(list(self.weights_by_name.values()))]

    def resized(self, weights: int) -> Method | None:
        """Return LoRA of the rank at which so many numbers train."""
        rank = equal_rank(self, weights)
        return None if self.of_rank is None or rank == self.rank else self.of_rank(rank)

    def weights(self, rank: int) -> int:
        """Return how many numbers would train in these layers at another rank."""
        magnitudes = sum(magnitude.numel() for magnitude in self._magnitudes.values())
        factors = sum(parameter.numel() for parameter in self.parameters()) - magnitudes
        other = LORA_KINDS[self.kind](rank, 1, 0.0, 1)
        return magnitudes + factors // first_rank(self.config) * first_rank(other)

    def reset(self, seed: int) -> None:
        """Go back to a fresh start, the same for the same seed; parameter objects stay."""
        with isolated_random(self.parameters()[0].device):
            torch.manual_seed(seed)
            for layer in self.layers():
                self.draw(layer)
        with torch.no_grad():
            for name, magnitude in self._magnitudes.items():
                self.weights_by_name[name].copy_(magnitude)
        for parameter in self.parameters():
            parameter.grad = None

    def layers(self) -> list[Any]:
        """Return the layers that PEFT wrapped, in the model's order."""
        return [module for module in self.wrapped.modules() if isinstance(module, BaseTunerLayer)]

    def draw(self, layer: Any) -> None:
        """Draw the factors of a layer of PEFT's."""
        layer.reset_lora_parameters(ADAPTER, True)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and JSON values to go on from."""
        return {"weights": {name: weight.detach() for name, weight in self.weights_by_name.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`.

        Raises:
            ValueError: The state is of other layers.
        """
        weights = state["weights"]
        if set(weights) != set(self.weights_by_name):
            raise ValueError("the saved LoRA weights belong to other layers of the model")
        with torch.no_grad():
            for name, parameter in self.weights_by_name.items():
                parameter.copy_(weights[name])

    def save(self, folder: str | Path) -> None:
        """Write a plain PEFT adapter folder; `peft.PeftModel.from_pretrained` reads it."""
        self.wrapped.save_pretrained(str(folder), save_embedding_layers=False)
        Path(folder, "README.md").unlink(missing_ok=True)
        shutil.rmtree(Path(folder, ".cache"), ignore_errors=True)

    def load(self, folder: Path) -> None:
        """Read the weights of the folder that `save` wrote; ranks that are pruned are zeros."""
        path = folder / SAFETENSORS_WEIGHTS_NAME
        tensors = read_tensors(path)
        expected = get_peft_model_state_dict(self.wrapped, save_embedding_layers=False)
        check_tensors(path, tensors, {name: tuple(each.shape) for name, each in expected.items()})
        set_peft_model_state_dict(self.wrapped, tensors)

    def merge(self, task: str | None = None) -> None:
        """Put the updates into the weights that they are of."""
        self.wrapped.merge_and_unload()

    def detach(self) -> None:
        """Take PEFT's layers out of the model."""
        self.wrapped.unload()

    @property
    def config(self) -> Any:
        """PEFT's configuration."""
        return self.wrapped.peft_config[ADAPTER]


def equal_rank(lora: LoraHandle, weights: int) -> int:
    """Return the rank at which LoRA trains as near to `weights` numbers as any rank makes it.

    Args:
        lora: The layers whose rank is to change.
        weights: How many numbers of theirs are to train.
    """
    enough = 1 + bisect_left(range(1, weights + 1), weights, key=lora.weights)
    return min(max(1, enough - 1), enough, key=lambda rank: abs(lora.weights(rank) - weights))
