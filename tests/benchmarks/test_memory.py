"""What a training step keeps, by the program that counts it: bytes are the same on every run."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch

from peml.objective.config import LanguageModelConfig
from tests import ROOT


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("memory")


@pytest.fixture
def config(tmp_path: Path, memory: ModuleType) -> LanguageModelConfig:
    words = memory.task(tmp_path / "words", 128)
    return LanguageModelConfig(tasks=[str(words)], batch_size=2, max_length=128)


def kept(memory: ModuleType, config: LanguageModelConfig, *names: str) -> list[int]:
    rows = {row.name: row for row in memory.rows()}
    return [memory.measure(config, rows[name])[1] for name in names]


def test_folded_parts_keep_what_lora_of_their_rank_keeps(
    memory: ModuleType, config: LanguageModelConfig
) -> None:
    lora, folded = kept(memory, config, "LoRA, r 160", "MultiLoRA, n 5, folded")
    assert folded <= 1.1 * lora


def test_peml_keeps_less_than_half_of_five_loras_part_by_part(
    memory: ModuleType, config: LanguageModelConfig
) -> None:
    peml, parts = kept(memory, config, "PEML, r 16, searching", "MultiLoRA, n 5, parts")
    assert peml <= 0.45 * parts


def test_each_part_adds_its_output_and_its_dropout_unless_they_share_it(
    memory: ModuleType, config: LanguageModelConfig
) -> None:
    names = [f"MultiLoRA, n {n}, parts{form}" for form in ("", ", one dropout") for n in (1, 3, 5)]
    one, three, five, shared_one, shared_three, shared_five = kept(memory, config, *names)
    assert five - three == three - one
    assert shared_five - shared_three == shared_three - shared_one
    assert shared_one == one
    assert five - one > 2 * (shared_five - shared_one)


def test_the_parts_compute_what_the_folded_method_does(memory: ModuleType) -> None:
    """Or the comparison would be of two different methods."""
    config = LanguageModelConfig(tasks=["embedded:sentiment"], train_limit=8, eval_limit=4)
    rows = {row.name: row for row in memory.rows()}
    losses = []
    for form in ("folded", "parts"):
        method = rows[f"MultiLoRA, n 3, {form}"].method
        made = memory.JointObjective(
            config, 4, 0, method=dataclasses.replace(method, lora_dropout=0.0)
        )
        made.reset(None, 0)
        with torch.no_grad():
            for term in made.method.terms:
                term.scales.fill_(0.5)
        losses.append(made.backward()["sentiment"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_live_bytes_rise_and_fall_with_the_tensors(memory: ModuleType) -> None:
    with memory.LivePeak() as peak:
        first = torch.ones(256)
        second = first + first
        del first
        third = second * 2
        third.view(16, 16).add_(1)
    assert peak.most == 2 * 1024
