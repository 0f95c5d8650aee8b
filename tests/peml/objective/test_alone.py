"""LoRA with as many trained weights as LoRA and a prefix."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from peml.methods.lora_handle import LoraHandle, equal_rank
from peml.methods.lora_kinds import LORA_KINDS, alpha_at
from peml.objective.objective import JointObjective
from prefixnas.network.supernet import build_child
from prefixnas.run.objective import Objective
from prefixnas.testing import ObjectiveCheck
from tests.peml.objective.built import FAMILIES, SPACE, config

KINDS = list(LORA_KINDS)


def build(bench: Path, family: str = "llama", **options: Any) -> JointObjective:
    return JointObjective(config(bench, family, **options), total_steps=20, seed=0)


def with_prefix(objective: JointObjective) -> int:
    """Put a child into its place; return how many numbers train."""
    torch.manual_seed(0)
    objective.reset(build_child(SPACE, SPACE.first(), objective.width), 0)
    return count(objective)


def count(objective: Objective) -> int:
    return sum(weight.numel() for group in objective.parameters() for weight in group["params"])


def resized(objective: JointObjective, weights: int) -> JointObjective:
    made = objective.alone(weights)
    assert made is not None
    made.reset(None, 0)
    return made


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_its_weights_are_those_of_the_child_within_a_unit_of_rank(
    family: str, kind: str, bench: Path
) -> None:
    objective = build(bench, family, method=kind)
    weights = with_prefix(objective)
    made = resized(objective, weights)
    rank = int(made.without_label.rpartition("r=")[2])
    heads = sum(weight.numel() for weight in made.heads.parameters()) if made.heads else 0
    assert count(made) == heads + made.method.weights(rank)
    assert made.method.weights(rank) == objective.method.weights(rank)
    unit = objective.method.weights(rank + 1) - objective.method.weights(rank)
    assert abs(count(made) - weights) <= unit
    assert (made.heads is None) == (objective.heads is None)
    assert made.without_label.startswith(objective.without_label.removesuffix(" alone"))


def test_a_rank_is_counted_by_hand(bench: Path) -> None:
    """Llama of two layers: four projections, each with two factors."""
    lora = build(bench).method
    shapes = [tuple(factor.shape) for factor in lora.parameters()]
    each = sum(max(shape) for shape in shapes)
    assert {min(shape) for shape in shapes} == {2}
    assert [lora.weights(rank) for rank in (1, 2, 7)] == [each, 2 * each, 7 * each]


class Stepped:
    """LoRA whose weights grow by 10 and then by 20, as AdaLoRA's grow unevenly."""

    def weights(self, rank: int) -> int:
        return 10 * (rank + rank // 2)


@given(st.integers(-5, 400))
def test_no_other_rank_is_nearer(weights: int) -> None:
    stepped: LoraHandle = Stepped()  # type: ignore[assignment]
    found = equal_rank(stepped, weights)
    assert found >= 1
    distances = [abs(stepped.weights(rank) - weights) for rank in range(1, 60)]
    assert abs(stepped.weights(found) - weights) == min(distances)


@pytest.mark.parametrize("kind", KINDS)
def test_the_scale_of_the_update_falls_with_the_root_of_the_rank(kind: str, bench: Path) -> None:
    objective = build(bench, method=kind, lora_rank=4, lora_alpha=10)
    made = resized(objective, 5 * count(objective))
    for layer, other in zip(objective.method.layers(), made.method.layers(), strict=True):
        scales = [each.scaling["default"] for each in (layer, other)]
        if kind == "adalora":  # PEFT divides in the forward pass
            scales = [s / float(each.ranknum["default"]) for s, each in zip(
                scales, (layer, other), strict=True)]  # fmt: skip
        ranks = [each.lora_A["default"] for each in (layer, other)]
        grown = _rank(ranks[1]) / _rank(ranks[0])
        assert grown > 2 and scales[1] == pytest.approx(scales[0] / math.sqrt(grown))


def _rank(factor: Any) -> int:
    """AdaLoRA's factor is a parameter, that of the others a linear layer."""
    return len(factor if isinstance(factor, Tensor) else factor.weight)


def test_alpha_of_another_rank_by_hand() -> None:
    assert alpha_at("lora", 16, 32, 64) == pytest.approx(32 * math.sqrt(4))
    assert alpha_at("rslora", 16, 32, 64) == 32
    assert all(alpha_at(kind, 16, 32, 16) == 32 for kind in KINDS)


@pytest.mark.parametrize("family", FAMILIES)
def test_frozen_weights_are_shared_and_the_order_of_the_data_is_the_same(
    family: str, bench: Path
) -> None:
    objective = build(bench, family)
    made = resized(objective, 5 * count(objective))
    places = {p.data_ptr() for p in objective.lm.model.parameters() if not p.requires_grad}
    frozen = [p for p in made.lm.model.parameters() if not p.requires_grad]
    assert frozen and all(p.data_ptr() in places for p in frozen)
    assert made.data == objective.data
    objective.reset(None, 0)
    # B is zero before the first step, so the rank doesn't tell: the losses are those of one model.
    losses = []
    for each in (objective, made):
        torch.manual_seed(0)
        losses.append(each.backward())
    assert losses[0] == losses[1]
    assert [next(made.draws("train")) for _ in range(3)] == [
        next(objective.draws("train")) for _ in range(3)
    ]


def test_there_is_none_where_the_rank_is_the_one_it_has(bench: Path) -> None:
    objective = build(bench)
    objective.reset(None, 0)
    unit = objective.method.weights(1)
    assert objective.alone(count(objective) + unit // 3) is None
    assert resized(objective, count(objective) + unit).without_label == "LoRA r=3"


@pytest.mark.parametrize("family", FAMILIES)
def test_it_keeps_the_contract(family: str, bench: Path) -> None:
    ObjectiveCheck(lambda: build(bench, family), space=SPACE).alone()
