"""Methods in the joint loss: tasks, groups, terms of the loss, what trains nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import peml
from peml.methods.linear import LinearTerms
from peml.objective.config import LanguageModelConfig
from peml.objective.objective import JointObjective
from prefixnas.base.errors import UserError
from prefixnas.network.supernet import build_child
from prefixnas.testing import ObjectiveCheck
from tests.peml.objective.built import SPACE


def build(bench: Path, method: str, family: str = "llama", **options: Any) -> JointObjective:
    given: dict[str, Any] = {
        "model": str(bench / family),
        "tasks": [str(bench / "mood"), str(bench / "order")],
        "prefix_length": 3,
        "prefix_start": "random",
        "batch_size": 4,
        **options,
    }
    return JointObjective(LanguageModelConfig.of(method)(**given), 20, 0)


def test_every_task_trains_its_own_part(bench: Path) -> None:
    objective = build(bench, "mtl-lora", lora_rank=2)
    objective.reset(None, 0)
    assert isinstance(objective.method, LinearTerms)
    with torch.no_grad():
        for term in objective.method.terms:
            term.b.normal_()  # type: ignore[operator, union-attr]
    objective.backward()
    term: Any = objective.method.terms[0]
    assert all(item.grad is not None for item in [*term.mixture, *term.middle])
    assert not torch.equal(term.middle[0].grad, term.middle[1].grad)


def test_groups_have_the_rates_of_method_router_and_configuration(bench: Path) -> None:
    objective = build(bench, "poly", lora_rank=2, learning_rate=0.03, weight_decay=0.5)
    objective.reset(None, 0)
    factors, routers = objective.parameters()
    assert (factors["lr"], factors["weight_decay"]) == (0.03, 0.5)
    assert (routers["lr"], routers["weight_decay"]) == (0.1, 0.0)
    (matrices, vectors) = build(bench, "full").parameters()
    assert (matrices["lr"], vectors["lr"], vectors["weight_decay"]) == (1e-4, 1e-4, 0.0)


@pytest.mark.parametrize(
    ("method", "options", "expected"),
    [
        ("lora", {}, {2e-3, 6e-3}),
        ("poly", {}, {2e-3, 0.1, 6e-3}),
        ("full", {}, {1e-4, 2e-3, 6e-3}),
        ("lora", {"prefix_attention": "concat", "prefix_start": None}, {2e-3, 3e-4}),
        ("lora", {"learning_rate": 0.01, "gate_learning_rate": 0.5}, {0.01, 0.5}),
    ],
)
def test_one_factor_is_of_all_rates_given_or_left_open(
    method: str, options: dict[str, Any], expected: set[float], bench: Path
) -> None:
    for factor in (1.0, 0.5, 3.0):
        objective = build(bench, method, rate_factor=factor, **options)
        objective.reset(build_child(SPACE, SPACE.first(), objective.width), 0)
        rates = sorted({group["lr"] for group in objective.parameters()})
        assert rates == pytest.approx([factor * rate for rate in sorted(expected)])


def test_a_methods_term_is_of_the_same_precision_as_the_loss(
    bench: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MPT passes the batch again with its teacher's rows, to compare what is computed alike."""
    objective = build(bench, "mpt", distill=0.5, prompt_length=3, mixed_precision="bf16")
    objective.reset(None, 0)
    seen = []
    monkeypatch.setattr(
        objective.training, "batch_loss", lambda: seen.append(torch.is_autocast_enabled("cpu"))
    )
    objective.backward()
    assert seen == [True] * len(objective.tasks)


def test_the_balance_loss_joins_the_gradient(bench: Path) -> None:
    found = []
    for balance in (0.0, 10.0):
        objective = build(bench, "loramoe", balance=balance, experts=2, lora_dropout=0.0)
        objective.reset(None, 0)
        losses = objective.backward()
        term: Any = objective.method.terms[0]  # type: ignore[attr-defined]
        found.append((losses, term.router.grad))
        assert objective.splits_batches == (not balance)
    (without, _), (with_it, gradient) = found
    assert without == with_it  # the losses that are told are the tasks'
    assert gradient is not None and bool((gradient != 0).any())


def test_a_frozen_model_trains_a_prefix_alone(bench: Path, tmp_path: Path) -> None:
    objective = build(bench, "frozen")
    assert not objective.optional
    objective.reset(build_child(SPACE, SPACE.first(), objective.width), 0)
    before = {name: p.clone() for name, p in objective.lm.model.named_parameters()}
    objective.backward()
    torch.optim.AdamW(objective.parameters()).step()
    for name, parameter in objective.lm.model.named_parameters():
        assert torch.equal(parameter, before[name]), name
    objective.save(tmp_path)
    loaded = peml.load(tmp_path)
    assert loaded.prefix is not None and loaded.manifest.lora is None


def test_a_frozen_encoder_trains_its_heads(bench: Path) -> None:
    objective = build(bench, "frozen", "bert")
    assert objective.optional
    objective.reset(None, 0)
    assert objective.heads is not None
    (heads,) = objective.parameters()
    assert len(heads["params"]) == len(list(objective.heads.parameters()))


def test_full_fine_tuning_leaves_the_base_to_others(bench: Path) -> None:
    objective = build(bench, "full")
    objective.reset(None, 0)
    others = {id(parameter) for parameter in objective.bare.parameters()}
    assert not others & {id(parameter) for parameter in objective.lm.model.parameters()}
    with pytest.raises(UserError, match="take --dtype float32"):
        build(bench, "full", dtype="bfloat16")


def test_a_configuration_of_another_method_is_refused(bench: Path) -> None:
    with pytest.raises(UserError, match=r"LanguageModelConfig\.of\('poly'\)"):
        LanguageModelConfig(method="poly", model=str(bench / "llama")).build(2, 0)


@pytest.mark.parametrize(
    ("method", "family"), [("mtl-lora", "llama"), ("poly", "bert"), ("full", "t5")]
)
def test_with_a_searched_prefix_it_keeps_the_contract(
    method: str, family: str, bench: Path
) -> None:
    check = ObjectiveCheck(lambda: build(bench, method, family), space=SPACE)
    for promise in ("reset", "evaluate", "backward", "splits", "state", "replace", "save"):
        getattr(check, promise)()
