from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

import peml
from peml.adapters.export import export
from peml.adapters.manifest import read_manifest
from peml.adapters.places import path_from
from peml.adapters.save import save_adapter
from peml.methods.peft_lora import add_lora
from peml.model.device import pick_device
from peml.model.load import load_language_model
from peml.prefix.handle import attach
from peml.prefix.kinds import ATTENTIONS
from peml.prefix.sites import find_sites
from prefixnas.base.errors import UserError
from tests.peml import tiny, zoo
from tests.peml.adapters.trained import KINDS, assert_same, heads, load, trained
from tests.peml.model.test_model import saved


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_folder_and_its_export_load_as_they_were_trained(
    kind: str, attention: str, tmp_path: Path
) -> None:
    lm, adapter = trained(kind, tmp_path, attention=attention)
    assert_same(lm, load(adapter), kind)
    export(adapter, tmp_path / "out", "peml", dtype="float64")
    shutil.rmtree(tmp_path / "base")
    shutil.rmtree(adapter)
    # The folder is self-contained and can be moved.
    (tmp_path / "out").rename(tmp_path / "moved")
    loaded = load(tmp_path / "moved")
    assert loaded.manifest.attention == attention
    assert_same(lm, loaded, kind)
    assert loaded.tokenizer("good film")["input_ids"] == lm.tokenizer("good film")["input_ids"]
    if kind == "bert":
        hidden = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(0))
        mask = torch.ones(2, 3)
        for task in ("sst2", "stsb"):
            assert loaded.heads is not None
            expected = heads()(task, hidden, mask)
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
    blocks = zoo.random_blocks(sites).float()
    save_adapter(tmp_path / "prefix", lm, sites=sites, blocks=blocks)
    assert sorted(path.name for path in (tmp_path / "prefix").iterdir()) == [
        "peml.json",
        "prefix.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    with attach(lm.model).using(blocks):
        assert_same(lm, load(tmp_path / "prefix"), "llama")

    other = load_language_model(tmp_path / "base")
    save_adapter(tmp_path / "lora", other, method=add_lora(other, rank=2))
    loaded = load(tmp_path / "lora")
    assert loaded.prefix is None
    assert_same(load_language_model(tmp_path / "base", dtype="float64"), loaded, "llama")
    export(tmp_path / "lora", tmp_path / "out", "peft")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= names


def test_an_adapter_of_before_there_were_two_kinds_reads_its_prefix_in_front(
    tmp_path: Path,
) -> None:
    lm, adapter = trained("llama", tmp_path, attention="concat")
    data = json.loads((adapter / "peml.json").read_text())
    del data["attention"], data["files"]
    (adapter / "peml.json").write_text(json.dumps({**data, "version": 2}))
    assert_same(lm, load(adapter), "llama")


def test_a_run_directory_stands_for_its_adapter(tmp_path: Path) -> None:
    lm, _ = trained("llama", tmp_path)
    assert_same(lm, load(tmp_path), "llama")


def test_an_adapter_is_moved_together_with_its_model(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    lm, adapter = trained("llama", tmp_path / "here")
    assert json.loads((adapter / "peml.json").read_text())["base"] == "../base"
    (tmp_path / "here").rename(tmp_path / "there")
    assert_same(lm, load(tmp_path / "there" / "adapter"), "llama")
    export(tmp_path / "there/adapter", tmp_path / "out", "peml", dtype="float64")
    assert_same(lm, load(tmp_path / "out"), "llama")


def test_the_base_model_may_be_elsewhere(tmp_path: Path) -> None:
    lm, adapter = trained("llama", tmp_path)
    (tmp_path / "base").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"base model '.*base' does not exist.*--model"):
        load(adapter)
    moved = peml.load(adapter, model=tmp_path / "elsewhere", dtype="float64")
    assert_same(lm, moved, "llama")
    export(adapter, tmp_path / "out", "peml", dtype="float64", model=tmp_path / "elsewhere")
    assert_same(lm, load(tmp_path / "out"), "llama")
    with pytest.raises(UserError, match=r"holds its model itself; leave --model out"):
        peml.load(tmp_path / "out", model=tmp_path / "elsewhere")
    with pytest.raises(UserError, match="made for a llama model"):
        peml.load(adapter, model=saved("gpt2", tmp_path / "gpt2"))


def test_what_shares_nothing_but_the_root_keeps_its_full_path(tmp_path: Path) -> None:
    inside = tmp_path / "run" / "adapter"
    inside.mkdir(parents=True)
    assert path_from(inside, str(tmp_path / "run")) == ".."
    assert path_from(tmp_path, str(inside)) == "./run/adapter"
    assert path_from(Path("/elsewhere/run"), str(tmp_path)) == str(tmp_path.resolve())
    assert path_from(inside, "embedded:llama") == "embedded:llama"
    assert path_from(inside, "owner/name") == "owner/name"


def test_a_model_of_the_hub_is_named_by_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "hub" / "models--owner--name"
    first, second = "a" * 40, "b" * 40
    for commit, seed in ((first, 0), (second, 1)):
        tiny.llama(seed).model.save_pretrained(cache / "snapshots" / commit)
        tiny.tokenizer().save_pretrained(cache / "snapshots" / commit)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(first)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    lm = load_language_model("owner/name", dtype="float64")
    save_adapter(tmp_path / "adapter", lm, method=add_lora(lm, rank=2))
    assert read_manifest(tmp_path / "adapter").revision == first
    (cache / "refs" / "main").write_text(second)  # the model's owner goes on
    loaded = load(tmp_path / "adapter")
    assert loaded.lm.revision == first
    assert_same(tiny.llama(0), loaded, "llama")


def test_a_device_that_is_not_there_is_named(tmp_path: Path) -> None:
    _, adapter = trained("llama", tmp_path)
    assert peml.load(adapter).lm.device == pick_device()
    for device, said in (
        ("meta", "device 'meta' is not there .allowed: auto, cpu"),
        ("gpu", "unknown device 'gpu': did you mean 'cpu'"),
        ("cuda:99", "device 'cuda:99' is not there .allowed: auto, cpu"),
    ):
        with pytest.raises(UserError, match=said):
            peml.load(adapter, device=device)


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
        ("odd", {"colour": "red"}, "unknown key 'colour'"),
        ("kind", {"attention": "paralel"}, "peml.json: .*did you mean 'parallel'"),
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
