"""Options: what is refused, which part learns how fast, and what is said before training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from peml.objective.objective import JointObjective
from prefixnas.base.errors import UserError
from tests.peml.objective.built import (
    CONCAT,
    config,
    ready,
)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"prefix_length": 0}, "'prefix_length'"),
        ({"lora_rank": -1}, "'lora_rank'"),
        ({"batch_size": -1}, "'batch_size'"),
        ({"learning_rate": 0.0}, "'learning_rate'"),
        ({"tasks": []}, "'tasks'"),
        ({"max_length": 2}, "max_length"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], said: str, bench: Path) -> None:
    with pytest.raises(UserError, match=said):
        JointObjective(replace(config(bench), **options), total_steps=4, seed=0)


def test_each_part_has_its_learning_rate(bench: Path) -> None:
    objective, _ = ready(
        bench,
        "bert",
        learning_rate=0.1,
        prefix_learning_rate=0.2,
        head_learning_rate=0.3,
        gate_learning_rate=0.4,
    )
    assert objective.prefix.encoder is not None and objective.heads is not None
    rates = {id(p): g["lr"] for g in objective.parameters() for p in g["params"]}
    assert {rates[id(p)] for p in objective.method.parameters()} == {0.1}
    assert {rates[id(p)] for p in objective.heads.parameters()} == {0.3}
    trained = dict(objective.prefix.encoder.named_parameters())
    assert rates[id(trained.pop("head_gates.weight"))] == 0.4
    assert {rates[id(p)] for n, p in trained.items() if "alphas" not in n} == {0.2}
    assert len(rates) == sum(len(g["params"]) for g in objective.parameters())


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, (0.03, 6 * 0.03 / 2)), ({"prefix_attention": "concat"}, (3e-4,))],
)
def test_the_prefix_learns_in_relation_to_lora(
    options: dict[str, Any], expected: tuple[float, ...], bench: Path
) -> None:
    objective, _ = ready(bench, learning_rate=0.03, **options)
    lora, *others = [group["lr"] for group in objective.parameters()]
    assert lora == 0.03
    assert others == pytest.approx(list(expected))


@pytest.mark.parametrize(
    ("family", "options", "said"),
    [
        ("llama", {"prefix_text": "", "prefix_start": None}, "'', has no tokens"),
        ("llama", {"prefix_text": "Read.", "prefix_start": "random"}, "'prefix_text'.*'random'"),
        ("bert", {**CONCAT, "prefix_text": "Read."}, "'prefix_text'.*'zero'"),
        ("bert", {"prefix_start": "zero"}, "'parallel' attention can't start with 'zero'"),
    ],
)
def test_a_text_that_would_not_be_read_is_refused(
    family: str, options: dict[str, Any], said: str, bench: Path
) -> None:
    with pytest.raises(UserError, match=said):
        JointObjective(config(bench, family, **options), total_steps=20, seed=0)


@pytest.mark.parametrize(
    ("family", "attention", "said"),
    [
        ("llama", "concat", []),
        ("t5", "concat", ["encoders"]),
        ("bert", "concat", ["positions"]),
        ("llama", "parallel", []),
        ("t5", "parallel", ["llama and mistral models alone"]),
        ("bert", "parallel", ["llama and mistral models alone"]),
    ],
)
def test_an_export_that_will_not_work_is_said_before_training(
    family: str, attention: str, said: list[str], bench: Path
) -> None:
    options = config(bench, family, prefix_attention=attention)
    objective = JointObjective(options, total_steps=20, seed=0)
    warnings = list(objective.warnings())
    assert len(warnings) == len(said)
    assert all("stock PEFT" in line and said[0] in line for line in warnings)
    assert all(f"{attention!r} attention" in line for line in warnings)
