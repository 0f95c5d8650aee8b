"""Low-rank weight updates on the attention projections, through PEFT."""

from __future__ import annotations

import shutil
import warnings
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import peft
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from peft.utils.save_and_load import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from peml.methods.method import Attached, Group, Method
from peml.methods.targets import (
    attention_projections,
    find_targets,
    linear_modules,
    matches,
    places_of,
    target_names,
)
from peml.model.device import isolated_random
from peml.model.model import Family, LanguageModel
from prefixnas.base.errors import UserError, unknown
from prefixnas.base.tensors import check_tensors, read_tensors

_ADAPTER = "default"

TASK_TYPES: Mapping[Family, peft.TaskType] = {
    "decoder": peft.TaskType.CAUSAL_LM,
    "encoder-decoder": peft.TaskType.SEQ_2_SEQ_LM,
    "encoder": peft.TaskType.FEATURE_EXTRACTION,
}
"""What PEFT calls a model of a family: its `AutoPeftModelFor...` classes go by it."""

_Config = peft.LoraConfig | peft.AdaLoraConfig
_Builder = Callable[[int, Any, float, int | None], _Config]  # alpha: PEFT says int


def _adalora(rank: int, alpha: Any, dropout: float, total_steps: int | None) -> _Config:
    if not total_steps or total_steps < 1:
        raise UserError("lora: adalora needs the total number of training steps (total_steps)")
    # The budget falls from one and a half times the rank to the rank between 10 % and 50 % of
    # the steps; the second half trains what is left, as in the AdaLoRA paper.
    return peft.AdaLoraConfig(
        init_r=rank + max(1, rank // 2),
        target_r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        tinit=total_steps // 10,
        tfinal=total_steps // 2,
        deltaT=max(1, total_steps // 100),
        total_step=total_steps,
    )


def _plain(*, use_rslora: bool = False, use_dora: bool = False) -> _Builder:
    def build(rank: int, alpha: Any, dropout: float, _: int | None) -> _Config:
        return peft.LoraConfig(
            r=rank,
            lora_alpha=alpha,
            lora_dropout=dropout,
            use_rslora=use_rslora,
            use_dora=use_dora,
        )

    return build


LORA_KINDS: Mapping[str, _Builder] = {
    "lora": _plain(),
    "rslora": _plain(use_rslora=True),
    "dora": _plain(use_dora=True),
    "adalora": _adalora,
}
"""What `add_lora` can add, by name."""


def _first_rank(config: Any) -> int:
    """Return the rank that the factors are made with; AdaLoRA's is above the one it ends with."""
    return int(getattr(config, "init_r", config.r))


def same_scale(kind: str, rank: int, alpha: float, other: int) -> float:
    """Return the alpha that scales the update of rank `other` as `alpha` does that of `rank`.

    PEFT divides alpha by the rank, for rsLoRA by its root.
    """
    if other == rank:
        return alpha
    before, after = (LORA_KINDS[kind](each, 1, 0.0, 1) for each in (rank, other))
    grown = _first_rank(after) / _first_rank(before)
    return alpha * (grown**0.5 if before.use_rslora else grown)


def equal_rank(lora: LoraHandle, weights: int) -> int:
    """Return the rank at which LoRA trains as near to `weights` numbers as any rank makes it.

    Args:
        lora: The layers whose rank is to change.
        weights: How many numbers of theirs are to train.
    """
    enough = 1 + bisect_left(range(1, weights + 1), weights, key=lora.weights)
    return min(max(1, enough - 1), enough, key=lambda rank: abs(lora.weights(rank) - weights))


class LoraHandle(Attached):
    """LoRA layers inside a model; made by `add_lora`.

    The model object stays the same: its projections are wrapped in place, so ``lm.model(...)``
    and ``lm.model.generate`` use the low-rank updates.
    """

    of_rank: Callable[[int], Method] | None = None
    """Makes the method with another rank."""

    def __init__(self, wrapped: peft.PeftModel, kind: str, rank: int) -> None:
        self.rank = rank
        self.kind, self.rewrites_weights = kind, kind == "adalora"
        self._wrapped = wrapped
        for name, parameter in wrapped.get_base_model().named_parameters():
            # PEFT means AdaLoRA's rank to be a constant and does not save it, but lets it train.
            if "ranknum" in name:
                parameter.requires_grad_(False)
        self._named = {
            name: parameter
            for name, parameter in wrapped.get_base_model().named_parameters()
            if parameter.requires_grad
        }
        # DoRA's magnitudes start at the norms of the base weights, whatever the seed.
        self._magnitudes = {
            name: parameter.detach().clone()
            for name, parameter in self._named.items()
            if "lora_magnitude_vector" in name
        }

    def groups(self) -> list[Group]:
        """Everything that trains, in a fixed order."""
        return [Group(list(self._named.values()))]

    def resized(self, weights: int) -> Method | None:
        """Return LoRA of the rank at which so many numbers train."""
        rank = equal_rank(self, weights)
        return None if self.of_rank is None or rank == self.rank else self.of_rank(rank)

    def weights(self, rank: int) -> int:
        """Return how many numbers would train in these layers at another rank."""
        magnitudes = sum(magnitude.numel() for magnitude in self._magnitudes.values())
        factors = sum(parameter.numel() for parameter in self.parameters()) - magnitudes
        other = LORA_KINDS[self.kind](rank, 1, 0.0, 1)
        return magnitudes + factors // _first_rank(self._config) * _first_rank(other)

    def reset(self, seed: int) -> None:
        """Go back to a fresh start, the same for the same seed; parameter objects stay."""
        with isolated_random(self.parameters()[0].device):
            torch.manual_seed(seed)
            for layer in self._layers():
                if self.kind == "adalora":
                    layer.reset_lora_parameters(_ADAPTER)
                else:
                    layer.reset_lora_parameters(_ADAPTER, True)
        with torch.no_grad():
            for name, magnitude in self._magnitudes.items():
                self._named[name].copy_(magnitude)
        for parameter in self.parameters():
            parameter.grad = None
        if self.kind == "adalora":
            self._config.rank_pattern = None
            self._allocator.reset_ipt()

    def step_loss(self) -> Tensor | None:
        """AdaLoRA's term that keeps its singular vectors orthogonal, weighted; None otherwise.

        The mean of ``||P P^T - I||_F`` over all left and right factors, times
        ``orth_reg_weight``. PEFT adds it in its own forward pass only, which we do not use.
        """
        if self.kind != "adalora":
            return None
        terms = []
        for name, factor in self._named.items():
            if "lora_A" in name or "lora_B" in name:
                gram = factor @ factor.T if "lora_A" in name else factor.T @ factor
                eye = torch.eye(gram.shape[0], device=gram.device, dtype=gram.dtype)
                terms.append(torch.linalg.matrix_norm(gram - eye))
        return torch.stack(terms).mean() * float(self._config.orth_reg_weight)

    def stepped(self, step: int) -> None:
        """Let AdaLoRA reallocate ranks: after ``optimizer.step()``, before ``zero_grad()``.

        Args:
            step: How many optimiser steps were done before this one, from 0.
        """
        if self.kind == "adalora":
            tuner: Any = self._wrapped.base_model
            tuner.update_and_allocate(step)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and JSON values to go on from: weights, and AdaLoRA's running importances."""
        state: dict[str, Any] = {"weights": {k: v.detach() for k, v in self._named.items()}}
        if self.kind == "adalora":
            state["importance"] = {name: dict(getattr(self._allocator, name)) for name in _IPT}
            state["rank_pattern"] = self._config.rank_pattern
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`.

        Raises:
            ValueError: The state is of other layers.
        """
        weights = state["weights"]
        if set(weights) != set(self._named):
            raise ValueError("the saved LoRA weights belong to other layers of the model")
        with torch.no_grad():
            for name, parameter in self._named.items():
                parameter.copy_(weights[name])
        if self.kind == "adalora":
            for name in _IPT:
                saved = state.get("importance", {}).get(name, {})
                setattr(self._allocator, name, {k: v.clone() for k, v in saved.items()})
            self._config.rank_pattern = state["rank_pattern"]

    def save(self, folder: str | Path) -> None:
        """Write a plain PEFT adapter folder; `peft.PeftModel.from_pretrained` reads it."""
        pattern = getattr(self._config, "rank_pattern", None)
        try:
            if self.kind == "adalora":
                # Pruned ranks are zeros already. Cutting them out, as PEFT would, loses the
                # scale that belongs to the full rank.
                self._config.rank_pattern = None
            self._wrapped.save_pretrained(str(folder), save_embedding_layers=False)
        finally:
            if self.kind == "adalora":
                self._config.rank_pattern = pattern
        Path(folder, "README.md").unlink(missing_ok=True)
        shutil.rmtree(Path(folder, ".cache"), ignore_errors=True)

    def load(self, folder: Path) -> None:
        """Read the weights of the folder that `save` wrote; ranks that are pruned are zeros."""
        path = folder / SAFETENSORS_WEIGHTS_NAME
        tensors = read_tensors(path)
        expected = get_peft_model_state_dict(self._wrapped, save_embedding_layers=False)
        check_tensors(path, tensors, {name: tuple(each.shape) for name, each in expected.items()})
        set_peft_model_state_dict(self._wrapped, tensors)

    def merge(self, task: str | None = None) -> None:
        """Put the updates into the weights that they are of."""
        self._wrapped.merge_and_unload()

    def detach(self) -> None:
        """Take PEFT's layers out of the model."""
        self._wrapped.unload()

    @property
    def _config(self) -> Any:
        return self._wrapped.peft_config[_ADAPTER]

    @property
    def _allocator(self) -> Any:
        tuner: Any = self._wrapped.base_model
        return tuner.rankallocator

    def _layers(self) -> list[Any]:
        return [m for m in self._wrapped.modules() if isinstance(m, BaseTunerLayer)]


_IPT = ("ipt", "exp_avg_ipt", "exp_avg_unc")


def add_lora(
    lm: LanguageModel,
    kind: str = "lora",
    *,
    rank: int = 16,
    alpha: float = 32,
    dropout: float = 0.1,
    targets: Sequence[str] | None = None,
    total_steps: int | None = None,
    seed: int = 0,
) -> LoraHandle:
    """Put trainable low-rank updates on a model's projections; the base stays frozen.

    Each layer keeps the train or eval mode of the model; switching it is the caller's business.

    Args:
        lm: The model; changed in place.
        kind: ``"lora"``, ``"rslora"``, ``"dora"`` or ``"adalora"``.
        rank: Rank r. AdaLoRA starts at 1.5 r and ends at r on average.
        alpha: Scale of the update (divided by the rank).
        dropout: Dropout on the update's input, in training.
        targets: Names of linear modules, as in PEFT's ``target_modules``; None means all
            projections of the attention layers.
        total_steps: Number of optimiser steps to come; AdaLoRA's schedule needs it.
        seed: Seed of the fresh weights.

    Raises:
        UserError: Unknown kind, bad numbers, or targets that match nothing, or weights that the
            model uses in two places.
    """
    if kind not in LORA_KINDS:
        raise unknown("kind of LoRA", kind, LORA_KINDS)
    if rank < 1:
        raise UserError(f"lora: rank is {rank}, must be at least 1")
    if not 0 <= dropout < 1:
        raise UserError(f"lora: dropout is {dropout}, must be at least 0 and below 1")
    linear = linear_modules(lm.model)
    config = LORA_KINDS[kind](rank, alpha, dropout, total_steps)
    find_targets(lm.model, targets)
    config.target_modules = target_names(lm.model, targets)
    config.fan_in_fan_out = any(isinstance(module, Conv1D) for module in linear.values())
    with warnings.catch_warnings(), isolated_random(lm.device):
        # One flag for all layers: PEFT corrects it where a model mixes Conv1D and Linear.
        warnings.filterwarnings("ignore", message="fan_in_fan_out")
        wrapped = peft.get_peft_model(lm.model, config)
    name_base(wrapped.peft_config[_ADAPTER], lm)
    lm.model.train(lm.model.training)
    handle = LoraHandle(wrapped, kind, rank)
    handle.reset(seed)
    return handle


def name_base(config: peft.PeftConfig, lm: LanguageModel) -> None:
    """Say in a configuration of PEFT which model it is for, so that its folder alone loads."""
    config.task_type = TASK_TYPES[lm.family]
    config.base_model_name_or_path, config.revision = lm.place, lm.revision


def size_of_lora(lm: LanguageModel, kind: str, rank: int, targets: Sequence[str] | None) -> int:
    """Return how many numbers `add_lora` would train, without adding anything."""
    names = attention_projections(lm.model) if targets is None else targets
    linear = linear_modules(lm.model)
    places = places_of({n: m for n, m in linear.items() if matches(n, names)})
    made = _first_rank(LORA_KINDS[kind](rank, 1, 0.0, 1))
    # AdaLoRA has a singular value beside each pair of vectors, DoRA a magnitude for each output.
    values, magnitudes = kind == "adalora", kind == "dora"
    return sum(
        made * (place.width_in + place.width_out + values) + magnitudes * place.width_out
        for place in places
    )
