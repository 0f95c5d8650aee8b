"""What transformers and PEFT load by the name of a folder alone, and who may read it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import (
    AutoPeftModelForCausalLM,
    AutoPeftModelForFeatureExtraction,
    AutoPeftModelForSeq2SeqLM,
)
from transformers import AutoTokenizer, pipeline

import peml
from peml.adapters.export import FORMATS
from peml.adapters.save import save_adapter
from peml.methods.peft_lora import add_lora
from peml.model.load import load_language_model
from tests.peml import zoo
from tests.peml.adapters import test_methods
from tests.peml.adapters.trained import generated, trained
from tests.peml.model.test_model import saved

TEXT = "w5 w6 w7"


@pytest.fixture(params=[0o022, 0o027, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    try:
        yield request.param
    finally:
        os.umask(before)


def test_files_are_for_those_who_may_read_any_new_file(umask: int, tmp_path: Path) -> None:
    _, adapter = trained("llama", tmp_path, attention="concat")
    for format in FORMATS:
        peml.export(adapter, tmp_path / format, format)
    folders = [adapter, *(tmp_path / format for format in FORMATS)]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert len([path for path in files if path.suffix == ".safetensors"]) >= 8
    assert {path.stat().st_mode & 0o777 for path in files} == {0o666 & ~umask}


@pytest.mark.parametrize("kind", ["llama", "t5", "bert"])
def test_the_tokenizer_lies_beside_what_was_trained(kind: str, tmp_path: Path) -> None:
    lm, adapter = trained(kind, tmp_path)
    peml.export(adapter, tmp_path / "out")
    wanted = lm.tokenizer(TEXT)["input_ids"]
    for folder in (adapter, tmp_path / "out"):
        assert AutoTokenizer.from_pretrained(folder)(TEXT)["input_ids"] == wanted


@pytest.mark.parametrize(("kind", "attention"), [("llama", "concat"), ("narrow", "parallel")])
def test_an_export_with_a_prefix_loads_by_its_folder(
    kind: str, attention: str, tmp_path: Path
) -> None:
    lm, adapter = trained(kind, tmp_path, attention=attention)
    peml.export(adapter, tmp_path / "out", "peft")
    stock = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = tokenizer(TEXT, return_tensors="pt")
    assert torch.equal(generated(stock, ids), generated(lm.model, ids))
    given = zoo.inputs(kind)
    found = zoo.output(stock, given).double()
    torch.testing.assert_close(found, zoo.output(lm.model, given), atol=1e-4, rtol=1e-4)
    assert writes(stock, tokenizer) == writes(peml.load(adapter).model, tokenizer)


@pytest.mark.parametrize("format", ["peft", "merged"])
def test_an_export_without_a_prefix_is_a_pipeline_by_its_folder(
    format: str, tmp_path: Path
) -> None:
    lm, _, adapter = test_methods.adapter("multilora", "llama", tmp_path)
    peml.export(adapter, tmp_path / "out", format)
    folder = str(tmp_path / "out")
    assert writes(folder, folder) == writes(lm.model.float(), lm.tokenizer)
    if format == "peft":
        stock = AutoPeftModelForCausalLM.from_pretrained(folder).eval()
        ids = lm.tokenizer(TEXT, return_tensors="pt")
        assert torch.equal(generated(stock, ids), generated(lm.model.float(), ids))


@pytest.mark.parametrize("lora", ["lora", "rslora", "dora", "adalora"])
@pytest.mark.parametrize("kind", ["llama", "t5", "bert"])
def test_lora_without_a_prefix_loads_by_its_folder(kind: str, lora: str, tmp_path: Path) -> None:
    """PEFT's own methods are exported as they are, for the base where it lies now."""
    lm = load_language_model(saved(kind, tmp_path / "base"))
    handle = add_lora(lm, lora, rank=2, total_steps=9)
    with torch.no_grad():
        for number, weight in enumerate(handle.parameters()):
            weight += 0.1 * torch.randn(
                weight.shape, generator=torch.Generator().manual_seed(number)
            )
    save_adapter(tmp_path / "adapter", lm, method=handle)
    (tmp_path / "base").rename(tmp_path / "moved")
    peml.export(tmp_path / "adapter", tmp_path / "out", "peft", model=tmp_path / "moved")
    stock = AUTO[kind].from_pretrained(tmp_path / "out").eval()
    given = zoo.inputs(kind)
    torch.testing.assert_close(zoo.output(stock, given), zoo.output(lm.model, given))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer(TEXT)["input_ids"] == lm.tokenizer(TEXT)["input_ids"]
    if kind == "llama" and lora != "dora":  # whose magnitudes transformers 5.23 does not find
        folder = str(tmp_path / "out")
        assert writes(folder, folder) == writes(lm.model, lm.tokenizer)


AUTO: dict[str, Any] = {
    "llama": AutoPeftModelForCausalLM,
    "t5": AutoPeftModelForSeq2SeqLM,
    "bert": AutoPeftModelForFeatureExtraction,
}


def writes(model: Any, tokenizer: Any) -> str:
    pipe: Any = pipeline("text-generation", model=model, tokenizer=tokenizer)
    text: str = pipe(TEXT, max_new_tokens=5, do_sample=False)[0]["generated_text"]
    return text


@pytest.mark.parametrize(
    ("kind", "task_type"),
    [("llama", "CAUSAL_LM"), ("t5", "SEQ_2_SEQ_LM"), ("bert", "FEATURE_EXTRACTION")],
)
def test_lora_says_what_it_is_for(kind: str, task_type: str, tmp_path: Path) -> None:
    base = saved(kind, tmp_path / "base")
    lm = load_language_model(base)
    save_adapter(tmp_path / "adapter", lm, method=add_lora(lm, rank=2))
    said = json.loads((tmp_path / "adapter/lora/adapter_config.json").read_text())
    assert (said["task_type"], said["base_model_name_or_path"]) == (task_type, str(base.resolve()))


def test_a_model_of_the_hub_is_named_with_its_commit(tmp_path: Path) -> None:
    lm = replace(load_language_model(saved("llama", tmp_path / "base")), revision="0123abcd")
    lm.model.name_or_path = "someone/model"
    save_adapter(tmp_path / "adapter", lm, method=add_lora(lm, rank=2))
    said = json.loads((tmp_path / "adapter/lora/adapter_config.json").read_text())
    assert (said["base_model_name_or_path"], said["revision"]) == ("someone/model", "0123abcd")
