"""Adapters of methods that are none of PEFT's: loaded, merged, exported per task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor

import peml
from peml.adapters.manifest import read_manifest
from peml.adapters.save import save_adapter
from peml.methods.method import METHODS, Attached, Setting, attach_method
from peml.model.load import load_language_model
from peml.model.model import LanguageModel
from prefixnas.base.errors import UserError
from tests.peml import zoo
from tests.peml.adapters.trained import heads, load
from tests.peml.model.test_model import saved

TASKS = ("mood", "order", "size")


def adapter(
    name: str, kind: str, tmp_path: Path, **options: Any
) -> tuple[LanguageModel, Attached, Path]:
    """Save a base model and an adapter of it whose weights are anything but fresh."""
    lm = load_language_model(saved(kind, tmp_path / "base"), dtype="float64")
    method: Any = METHODS.get(name)(**options)
    attached = attach_method(method, lm, Setting(TASKS, 9))
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in attached.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    save_adapter(
        tmp_path / "adapter",
        lm,
        method=attached,
        heads=heads() if lm.family == "encoder" else None,
        tasks=[{"name": task} for task in TASKS],
    )
    return lm, attached, tmp_path / "adapter"


def result(lm: LanguageModel, kind: str, task: str) -> Tensor:
    with torch.no_grad(), lm.on(task):
        return zoo.output(lm.model, zoo.inputs(kind))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("multilora", "t5"),
        ("mtl-lora", "llama"),
        ("hydralora", "gpt2"),
        ("full", "bert"),
        ("lorahub", "llama"),
    ],
)
def test_what_is_loaded_computes_what_was_trained(name: str, kind: str, tmp_path: Path) -> None:
    lm, attached, folder = adapter(name, kind, tmp_path)
    loaded = load(folder)
    assert bool(loaded.lm.attached) == (attached.method.merges != "always")
    for task in TASKS[:2]:
        found = result(loaded.lm, kind, task)
        torch.testing.assert_close(found, result(lm, kind, task), atol=1e-6, rtol=1e-6)
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())


@pytest.mark.parametrize(
    ("name", "options"),
    [("full", {}), ("hyperprompt", {"tune_base": True}), ("mpt", {"distill": 0.5})],
)
def test_what_trained_in_full_precision_is_used_in_half(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    lm, _, folder = adapter(name, "llama", tmp_path, **options)
    loaded = peml.load(folder, dtype="float16").model
    assert loaded.dtype is torch.float16
    if name != "mpt":
        for one, other in zip(lm.model.parameters(), loaded.parameters(), strict=True):
            assert torch.equal(one.half(), other)


def test_a_loaded_model_wants_to_know_its_task(tmp_path: Path) -> None:
    _, _, folder = adapter("mtl-lora", "llama", tmp_path)
    loaded = load(folder)
    with pytest.raises(UserError, match=r"needs a task, by lm\.on\(NAME\): mood, order, size"):
        zoo.output(loaded.model, zoo.inputs("llama"))
    with pytest.raises(UserError, match=r"unknown task 'moood'.*'mood'"):
        result(loaded.lm, "llama", "moood")


@pytest.mark.parametrize(
    ("name", "kind", "task"),
    [
        ("multilora", "llama", None),
        ("mtl-lora", "gpt2", "order"),
        ("moelora", "llama", "size"),
        ("poly", "t5", "order"),
        ("mhr", "llama", "mood"),
        ("c-poly", "llama", "order"),
        ("hyperlora-id", "llama", "order"),
    ],
)
def test_stock_peft_loads_what_was_exported(
    name: str, kind: str, task: str | None, tmp_path: Path
) -> None:
    lm, _, folder = adapter(name, kind, tmp_path)
    peml.export(folder, tmp_path / "out", "peft", task=task, dtype="float64")
    fresh: Any = load_language_model(tmp_path / "base", dtype="float64").model
    stock = peft.PeftModel.from_pretrained(fresh, str(tmp_path / "out"))
    with torch.no_grad():
        found = zoo.output(stock, zoo.inputs(kind))
    torch.testing.assert_close(found, result(lm, kind, task or TASKS[0]), atol=1e-6, rtol=1e-6)


def test_merged_for_a_task_it_needs_no_task(tmp_path: Path) -> None:
    lm, _, folder = adapter("poly", "llama", tmp_path)
    peml.export(folder, tmp_path / "out", "peml", task="order", dtype="float64")
    loaded = load(tmp_path / "out")
    assert loaded.manifest.method is None and not loaded.lm.attached
    found = zoo.output(loaded.model, zoo.inputs("llama"))
    torch.testing.assert_close(found, result(lm, "llama", "order"), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("format", ["peml", "merged", "peft"])
def test_a_model_of_one_task_knows_of_no_other(format: str, tmp_path: Path) -> None:
    _, _, folder = adapter("poly", "llama", tmp_path)
    peml.export(folder, tmp_path / "out", format, task="order", dtype="float64")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "order" in card and "mood" not in card and "size" not in card
    if format == "peml":
        assert [task["name"] for task in read_manifest(tmp_path / "out").tasks] == ["order"]


@pytest.mark.parametrize(
    ("name", "task", "message"),
    [
        ("mtl-lora", None, r"a model of each task: name one by --task \(mood, order, size\)"),
        ("mtl-lora", "moood", "unknown task 'moood'.*'mood'"),
        ("multilora", "mood", "same for all tasks"),
        ("lora", "mood", "same for all tasks"),
        ("hydralora", None, "cannot be put into weights"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    name: str, task: str | None, message: str, tmp_path: Path
) -> None:
    _, _, folder = adapter(name, "llama", tmp_path)
    with pytest.raises(UserError, match=message):
        peml.export(folder, tmp_path / "out", "merged", task=task)
    assert not (tmp_path / "out").exists()


def test_the_manifest_says_which_method_it_is(tmp_path: Path) -> None:
    _, attached, folder = adapter("mhr", "llama", tmp_path, splits=2, lora_rank=3)
    method, setting = read_manifest(folder).trained_method()
    assert method == attached.method and setting.tasks == TASKS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "mhrr"}, "unknown method 'mhrr'.*'mhr'"),
        ({"options": {"skils": 3}}, "unknown key 'skils'.*'skills'"),
        ({"options": {"skills": 0}}, "must be at least 1"),
        ({"tasks": 3}, "must be a list"),
    ],
)
def test_a_damaged_description_is_refused_in_one_line(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    _, _, folder = adapter("mhr", "llama", tmp_path)
    path = folder / "peml.json"
    data = json.loads(path.read_text())
    data["method"] |= change
    path.write_text(json.dumps(data))
    with pytest.raises(UserError, match=message) as caught:
        peml.load(folder)
    assert "\n" not in str(caught.value) and "peml.json" in str(caught.value)
