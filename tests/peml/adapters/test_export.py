from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM

import peml
from peml.adapters.export import FORMATS, export, read_manifest, save_adapter
from peml.answers.heads import TaskHeads
from peml.lora import add_lora
from peml.model.model import LanguageModel, load_language_model
from peml.prefix.handle import attach, find_sites
from prefixnas.base.errors import UserError
from tests.peml import zoo
from tests.peml.model.test_model import saved
from tests.peml.prefix.test_handle import random_blocks

KINDS = ("llama", "sliding", "gpt2", "t5", "bart", "bert")


def trained(
    kind: str, tmp_path: Path, lora: str = "lora", where: list[str] | None = None
) -> tuple[LanguageModel, Path]:
    """Save a base model and an adapter of it; return the model as it was trained, in float64."""
    base = saved(kind, tmp_path / "base")
    lm = load_language_model(base, dtype="float64")
    handle = add_lora(lm, lora, rank=4, dropout=0.1, total_steps=9)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in handle.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    prefix = attach(lm.model, find_sites(lm.model, where))
    blocks = random_blocks(prefix.sites).float()
    if lm.family == "encoder":
        lm.heads = TaskHeads(32, {"sst2": 2, "stsb": 1}, pooling="cls", seed=8)
    save_adapter(
        tmp_path / "adapter",
        lm,
        sites=prefix.sites,
        blocks=blocks,
        lora=handle,
        heads=lm.heads,
        tasks=[{"name": "sst2", "choices": ["bad", "good"]}],
    )
    prefix.set(blocks)
    return lm, tmp_path / "adapter"


def assert_same(first: LanguageModel, second: LanguageModel, kind: str) -> None:
    """Same logits and same generated tokens; both models compute in float64."""
    given = zoo.inputs(kind)
    one, two = zoo.output(first.model, given), zoo.output(second.model, given)
    torch.testing.assert_close(two, one, atol=1e-6, rtol=1e-6)
    if first.family != "encoder":
        assert torch.equal(*(generated(lm.model, given) for lm in (first, second)))


def load(folder: Path) -> LanguageModel:
    return peml.load(folder, dtype="float64")


def generated(model: nn.Module, given: dict[str, Tensor]) -> Tensor:
    source = {"input_ids": given["input_ids"]}
    tokens: Tensor = model.generate(  # type: ignore[operator]
        **source, max_new_tokens=5, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    return tokens


# --- adapter folders and the peml format --------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_folder_and_its_export_load_as_they_were_trained(
    kind: str, tmp_path: Path
) -> None:
    lm, adapter = trained(kind, tmp_path)
    assert_same(lm, load(adapter), kind)
    export(adapter, tmp_path / "out", "peml", dtype="float64")
    shutil.rmtree(tmp_path / "base")
    shutil.rmtree(adapter)
    # The folder is self-contained and can be moved.
    (tmp_path / "out").rename(tmp_path / "moved")
    loaded = load(tmp_path / "moved")
    assert_same(lm, loaded, kind)
    assert loaded.tokenizer("good film")["input_ids"] == lm.tokenizer("good film")["input_ids"]
    if kind == "bert":
        hidden = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(0))
        mask = torch.ones(2, 3)
        for task in ("sst2", "stsb"):
            assert loaded.heads is not None
            assert lm.heads is not None
            expected = lm.heads(task, hidden, mask)
            torch.testing.assert_close(loaded.heads(task, hidden, mask), expected)


@pytest.mark.parametrize("lora", ["rslora", "dora", "adalora"])
def test_every_kind_of_lora_is_merged_exactly(lora: str, tmp_path: Path) -> None:
    lm, adapter = trained("llama", tmp_path, lora)
    assert_same(lm, load(adapter), "llama")


def test_a_prefix_at_some_kinds_of_attention(tmp_path: Path) -> None:
    lm, adapter = trained("t5", tmp_path, where=["cross", "encoder"])
    loaded = load(adapter)
    assert_same(lm, loaded, "t5")
    assert loaded.prefix is not None
    assert {site.kind for site in loaded.prefix.sites} == {"cross", "encoder"}


def test_lora_alone_and_prefix_alone(tmp_path: Path) -> None:
    lm = load_language_model(saved("llama", tmp_path / "base"), dtype="float64")
    sites = find_sites(lm.model)
    blocks = random_blocks(sites).float()
    save_adapter(tmp_path / "prefix", lm, sites=sites, blocks=blocks)
    assert sorted(path.name for path in (tmp_path / "prefix").iterdir()) == [
        "peml.json",
        "prefix.safetensors",
    ]
    with attach(lm.model).using(blocks):
        assert_same(lm, load(tmp_path / "prefix"), "llama")

    other = load_language_model(tmp_path / "base")
    save_adapter(tmp_path / "lora", other, lora=add_lora(other, rank=2))
    loaded = load(tmp_path / "lora")
    assert loaded.prefix is None
    assert_same(load_language_model(tmp_path / "base", dtype="float64"), loaded, "llama")
    with pytest.raises(UserError, match="has no prefix"):
        export(tmp_path / "lora", tmp_path / "out", "peft")


def test_a_run_directory_stands_for_its_adapter(tmp_path: Path) -> None:
    lm, _ = trained("llama", tmp_path)
    assert_same(lm, load(tmp_path), "llama")


def test_saving_again_replaces_the_folder(tmp_path: Path) -> None:
    lm, adapter = trained("llama", tmp_path)
    save_adapter(adapter, lm)
    assert [path.name for path in adapter.iterdir()] == ["peml.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base"]


def test_the_manifest_round_trips(tmp_path: Path) -> None:
    lm, _ = trained("bert", tmp_path)
    manifest = read_manifest(tmp_path)
    assert manifest.base == str((tmp_path / "base").resolve())
    assert (manifest.family, manifest.architecture, manifest.lora) == ("encoder", "bert", "lora")
    assert manifest.sites == find_sites(lm.model)
    assert manifest.prefix_length == 3
    assert manifest.heads == {
        "hidden_size": 32,
        "outputs": {"sst2": 2, "stsb": 1},
        "pooling": "cls",
    }
    assert manifest.tasks == [{"name": "sst2", "choices": ["bad", "good"]}]


# --- merged -------------------------------------------------------------------------------------


def test_merged_is_a_plain_folder_with_the_prefix_beside_it(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    lm, adapter = trained("llama", tmp_path)
    export(adapter, tmp_path / "out", "merged", dtype="float64")
    assert lm.prefix is None
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float64)
    blocks = load_file(tmp_path / "out" / "prefix.safetensors")["blocks"]
    with attach(plain).using(blocks):
        assert_same(lm, LanguageModel(plain, lm.tokenizer, "decoder", "plain"), "llama")


# --- stock PEFT ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral", "phi"])
def test_stock_peft_loads_the_export_exactly(kind: str, tmp_path: Path) -> None:
    lm, adapter = trained(kind, tmp_path)
    export(adapter, tmp_path / "out", "peft")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "merged")
    stock = peft.PeftModel.from_pretrained(base, tmp_path / "out").eval()
    given = zoo.inputs(kind)
    expected = zoo.output(lm.model, given)
    theirs = zoo.output(stock, given)
    torch.testing.assert_close(theirs.double(), expected, atol=1e-4, rtol=1e-4)
    # The loaded adapter is merged like the export, and computes the very same numbers.
    assert torch.equal(theirs, zoo.output(peml.load(adapter).model, given))
    assert torch.equal(generated(stock, given), generated(lm.model, given))
    # Left padding, as generation in batches has it.
    ids = nn.functional.pad(given["input_ids"], (3, 0))
    padded = {"input_ids": ids, "attention_mask": (ids > 0).long()}
    new = [
        model.generate(**padded, max_new_tokens=5, do_sample=False, eos_token_id=None)[:, 10:]
        for model in (stock, lm.model)
    ]
    assert torch.equal(*new)


def test_stock_peft_needs_nothing_of_this_project(tmp_path: Path) -> None:
    lm, adapter = trained("llama", tmp_path)
    export(adapter, tmp_path / "out", "peft")
    given = zoo.inputs("llama")
    script = (
        "import sys, torch, peft, transformers\n"
        "out = sys.argv[1]\n"
        "base = transformers.AutoModelForCausalLM.from_pretrained(out + '/merged')\n"
        "model = peft.PeftModel.from_pretrained(base, out).eval()\n"
        f"ids = torch.tensor({given['input_ids'].tolist()})\n"
        "print(model(input_ids=ids).logits.sum().item())\n"
        "assert not {'peml', 'prefixnas'} & set(sys.modules)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "out")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    expected = float(zoo.output(lm.model, given).detach().sum())
    assert float(run.stdout.split()[-1]) == pytest.approx(expected, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32},
        {"rope_type": "dynamic", "factor": 2.0},  # other frequencies beyond the window
    ],
)
def test_stretched_rotary_positions_are_exported_exactly(
    rope: dict[str, Any], tmp_path: Path
) -> None:
    from transformers import LlamaForCausalLM

    config = zoo.build("llama").config
    config.rope_parameters = {"rope_theta": 10000.0, **rope}
    config.max_position_embeddings = 8
    torch.manual_seed(0)
    LlamaForCausalLM(config).float().save_pretrained(tmp_path / "base")
    zoo.language_model("llama").tokenizer.save_pretrained(tmp_path / "base")
    lm = load_language_model(tmp_path / "base")
    sites = find_sites(lm.model)
    blocks = random_blocks(sites).float()
    save_adapter(tmp_path / "adapter", lm, sites=sites, blocks=blocks)
    export(tmp_path / "adapter", tmp_path / "out", "peft")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "merged")
    stock = peft.PeftModel.from_pretrained(base, tmp_path / "out").eval()
    given = zoo.inputs("llama")
    with attach(lm.model).using(blocks):
        expected = zoo.output(lm.model, given)
    assert torch.equal(zoo.output(stock, given), expected)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("t5", "t5.*no prefix for encoders and cross-attention.*'peml'"),
        ("bart", "bart.*cross-attention.*'peml'"),
        ("bert", "bert.*positions.*'peml'"),
        ("gpt2", "gpt2.*not rotary.*'peml'"),
        ("sliding", "mistral.*windows.*'peml'"),
        ("gemma2", "gemma2.*windows.*'peml'"),
    ],
)
def test_peft_can_not_hold_every_prefix(kind: str, reason: str, tmp_path: Path) -> None:
    _, adapter = trained(kind, tmp_path)
    with pytest.raises(UserError, match=reason):
        export(adapter, tmp_path / "out", "peft")
    assert not (tmp_path / "out").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base"]


# --- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("format", FORMATS)
def test_an_occupied_or_unwritable_folder_is_refused(format: str, tmp_path: Path) -> None:
    _, adapter = trained("llama", tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious").write_text("mine")
    with pytest.raises(UserError, match="exists and is not empty"):
        export(adapter, out, format)
    assert (out / "precious").read_text() == "mine"
    with pytest.raises(UserError, match="can't write to"):
        export(adapter, out / "precious" / "below", format)


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    _, adapter = trained("llama", tmp_path)
    (tmp_path / "out").mkdir()
    export(adapter, tmp_path / "out", "merged")
    assert AutoModel.from_pretrained(tmp_path / "out").config.model_type == "llama"


def test_unusable_adapters_are_named(tmp_path: Path) -> None:
    _, adapter = trained("bert", tmp_path)

    def copy(name: str) -> Path:
        return Path(shutil.copytree(adapter, tmp_path / name))

    with pytest.raises(UserError, match="did you mean 'merged'"):
        export(adapter, tmp_path / "out", "merge")
    with pytest.raises(UserError, match="does not exist"):
        peml.load(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"has no peml\.json"):
        peml.load(tmp_path / "base")

    for name, change, message in (
        ("later", {"version": 99}, "version 99 is newer"),
        ("old", {"version": 1}, "version 1 is of an earlier version"),
        ("odd", {"colour": "red"}, "damaged"),
        ("other", {"architecture": "roberta"}, "made for a roberta model"),
        ("gone", {"base": "/no/such/model"}, "does not exist"),
    ):
        folder = copy(name)
        data = json.loads((folder / "peml.json").read_text())
        (folder / "peml.json").write_text(json.dumps({**data, **change}))
        with pytest.raises(UserError, match=message):
            peml.load(folder)

    broken = copy("broken")
    (broken / "peml.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        peml.load(broken)

    for file in ("prefix", "heads"):
        cut = copy(f"cut-{file}")
        (cut / f"{file}.safetensors").write_bytes(b"1234567890")
        with pytest.raises(UserError, match=rf"{file}\.safetensors: damaged"):
            peml.load(cut)
        (cut / f"{file}.safetensors").unlink()
        with pytest.raises(UserError, match=rf"{file}\.safetensors is missing"):
            peml.load(cut)


def test_importing_the_package_imports_no_torch() -> None:
    script = "import sys, peml; assert 'torch' not in sys.modules; assert callable(peml.load)"
    subprocess.run([sys.executable, "-c", script], check=True)
