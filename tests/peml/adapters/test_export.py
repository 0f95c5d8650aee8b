from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedModel

import peml
from peml.adapters.export import FORMATS, export
from peml.adapters.files import new_folder
from peml.model.model import LanguageModel
from peml.prefix.handle import attach
from prefixnas.base.errors import UserError
from prefixnas.network.supernet import build_child
from tests.peml.adapters.trained import assert_same, load, trained
from tests.peml.objective.built import SPACE
from tests.workbench import write_lines


def test_merged_is_a_plain_folder_with_the_prefix_beside_it(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    lm, adapter = trained("llama", tmp_path)
    export(adapter, tmp_path / "out", "merged", dtype="float64")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float64)
    blocks = load_file(tmp_path / "out" / "prefix.safetensors")["blocks"]
    with attach(plain).using(blocks):
        assert_same(lm, LanguageModel(plain, lm.tokenizer, "decoder", "plain"), "llama")


@pytest.mark.parametrize("format", FORMATS)
def test_an_occupied_or_unwritable_folder_is_refused(format: str, tmp_path: Path) -> None:
    _, adapter = trained("llama", tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious").write_text("mine")
    with pytest.raises(UserError, match="exists and is not empty"):
        export(adapter, out, format)
    assert (out / "precious").read_text() == "mine"
    with pytest.raises(UserError, match="cannot be written"):
        export(adapter, out / "precious" / "below", format)


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    _, adapter = trained("llama", tmp_path)
    (tmp_path / "out").mkdir()
    export(adapter, tmp_path / "out", "merged")
    assert AutoModel.from_pretrained(tmp_path / "out").config.model_type == "llama"


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_that_is_not_what_was_trained_is_not_written(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peml.adapters import load as loading

    _, adapter = trained("llama", tmp_path, attention="concat")
    merge = loading.merge_adapter

    def badly(model: PreTrainedModel, folder: Path, kind: str) -> PreTrainedModel:
        merged = merge(model, folder, kind)
        merged.get_input_embeddings().weight.data.mul_(1.2)  # type: ignore[operator,union-attr]
        return merged

    monkeypatch.setattr(loading, "merge_adapter", badly)
    with pytest.raises(UserError, match="the exported llama model is not the one that was trained"):
        export(adapter, tmp_path / "out", format)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["llama", "gpt2", "t5", "bert"])
def test_every_linear_module_may_be_trained(kind: str, tmp_path: Path) -> None:
    lm, adapter = trained(kind, tmp_path, every=True)
    export(adapter, tmp_path / "out", dtype="float64")
    assert_same(lm, load(tmp_path / "out"), kind)


def folders(tmp_path: Path) -> dict[str, tuple[Path, str]]:
    """Names of an empty folder, as one may give them from inside `work`, and where they lead."""
    work, target = tmp_path / "work", tmp_path / "target"
    work.mkdir()
    target.mkdir()
    (work / "link").symlink_to(target)
    return {
        "link": (target, "link"),
        "slash": (target, "link/"),
        "dot": (work / "in", "."),
        "up": (work / "in", "../in"),
        "name": (work / "mit Leerzeichen é 日本", "mit Leerzeichen é 日本/"),
    }


@pytest.mark.parametrize("which", ["link", "slash", "dot", "up", "name"])
def test_folders_mean_what_they_mean_to_cp(
    which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, given = folders(tmp_path)[which]
    inside = which in ("dot", "up")
    here = tmp_path / "work" / ("in" if inside else "")
    here.mkdir(exist_ok=True)
    monkeypatch.chdir(here)
    number = target.stat().st_ino if target.exists() else None
    with new_folder(given) as new:
        (new / "peml.json").write_text("{}")
        (new / "lora").mkdir()
    assert sorted(path.name for path in target.iterdir()) == ["lora", "peml.json"]
    assert number is None or target.stat().st_ino == number  # a shell inside stays inside
    if which in ("link", "slash"):
        assert (tmp_path / "work" / "link").is_symlink()
    with pytest.raises(UserError, match="exists and is not empty"), new_folder(given):
        pass


def test_heads_that_stock_peft_has_no_place_for_are_told_of(bench: Path, tmp_path: Path) -> None:
    config = peml.LanguageModelConfig(model=str(bench / "bert"), tasks=[str(bench / "mood")])
    objective = config.build(total_steps=1, seed=0)
    objective.reset(None, seed=0)
    objective.save(tmp_path / "adapter")
    for format in ("peft", "merged"):
        told: list[str] = []
        export(tmp_path / "adapter", tmp_path / format, format, warn=told.append)
        assert any("its task heads are left out" in line for line in told)
        assert "its task heads are left out" in (tmp_path / format / "README.md").read_text()
    told.clear()
    export(tmp_path / "adapter", tmp_path / "peml", "peml", warn=told.append)
    assert not any("left out" in line for line in told)


def test_an_export_does_not_need_the_data_as_it_was(bench: Path, tmp_path: Path) -> None:
    shutil.copytree(bench / "mood", tmp_path / "mood")
    config = peml.LanguageModelConfig(
        model=str(bench / "llama"), tasks=[str(tmp_path / "mood")], prefix_length=3
    )
    objective = config.build(total_steps=1, seed=0)
    objective.reset(build_child(SPACE, SPACE.first(), objective.width), seed=0)
    objective.save(tmp_path / "adapter")
    for split in ("train", "validation"):
        rows = [{"input": "a", "choices": ["x", "y", "z"], "label": n % 3} for n in range(6)]
        write_lines(tmp_path / "mood" / f"{split}.jsonl", rows)
    export(tmp_path / "adapter", tmp_path / "out", "peft", warn=lambda line: None)
    assert (tmp_path / "out" / "adapter_config.json").is_file()
