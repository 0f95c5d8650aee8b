"""A base model of 4 or 8 bits: what it computes, what trains on it, what is exported or refused."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

import peml.__main__
from peml.adapters.export import export
from peml.adapters.load import load
from peml.adapters.manifest import read_manifest
from peml.methods.method import METHODS, Setting, attach_method
from peml.model.load import load_language_model
from peml.model.model import LanguageModel
from peml.model.quantize import KINDS, dequantise
from peml.objective.proxy import skeleton
from prefixnas.base.errors import UserError
from tests.peml import tiny
from tests.workbench import SMALL, digest

IDS = torch.arange(4, 16)[None]
there = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)


def logits(lm: LanguageModel) -> Tensor:
    with torch.no_grad():
        found: Tensor = lm.model(IDS).logits
    return found


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a llama and a t5 whose layers read multiples of 64 numbers."""
    folder, words = tmp_path_factory.mktemp("wide"), len(tiny.WORDS)
    torch.manual_seed(0)
    ends = {"pad_token_id": 0, "eos_token_id": 3, "vocab_size": words}
    heads = {"num_attention_heads": 4, "num_hidden_layers": 2, "max_position_embeddings": 64}
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_key_value_heads": 2}
    llama = LlamaConfig(**sizes, **heads, **ends, bos_token_id=2, initializer_range=0.1)
    inner = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4}
    t5 = T5Config(**inner, **ends, decoder_start_token_id=0)
    for name, model in (("llama", LlamaForCausalLM(llama)), ("t5", T5ForConditionalGeneration(t5))):
        model.save_pretrained(folder / name)
        tiny.tokenizer().save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@there
def test_what_is_frozen_takes_fewer_bits_and_is_nearly_the_same(kind: str, wide: Path) -> None:
    whole, lm = (load_language_model(wide / "llama", quantize=each) for each in (None, kind))
    bits = {"nf4": 4, "int8": 8}[kind]
    name = "model.layers.0.mlp.up_proj"
    small, large = (each.model.get_submodule(name).weight for each in (lm, whole))
    assert small.numel() * small.element_size() * 8 == large.numel() * bits
    assert lm.quantize == kind and not any(p.requires_grad for p in lm.model.parameters())
    dequantise(lm.model)
    found = lm.model.get_submodule(name).weight
    assert 0 < (found - large).norm() / large.norm() < {"nf4": 0.15, "int8": 0.02}[kind]


@there
def test_a_copy_shares_its_weights_and_computes_the_same(kind: str, wide: Path) -> None:
    lm = load_language_model(wide / "llama", quantize=kind)
    copy = skeleton(lm.model)
    with torch.no_grad():
        assert torch.equal(copy(IDS).logits, logits(lm))
    for one, other in zip(lm.model.parameters(), copy.parameters(), strict=True):
        assert one is other
    if kind == "int8":
        name = "model.layers.0.mlp.up_proj"
        held = [each.get_submodule(name).state.CB for each in (lm.model, copy)]
        assert held[0].data_ptr() == held[1].data_ptr()


@there
def test_whole_weights_are_those_that_the_quantised_stand_for(kind: str, wide: Path) -> None:
    lm = load_language_model(wide / "llama", quantize=kind)
    before = logits(lm)
    dequantise(lm.model)
    assert lm.model.dtype is torch.float32
    # int8 rounds what its layers read as well, nf4 does not.
    tolerance = {"nf4": 1e-5, "int8": 0.1}[kind] * float(before.abs().max())
    torch.testing.assert_close(logits(lm), before, atol=tolerance, rtol=0)


@there
@pytest.mark.parametrize("name", sorted(set(METHODS.names()) - {"full", "frozen"}))
def test_methods_train_on_it(kind: str, name: str, wide: Path) -> None:
    """As on whole weights: the gradient reaches as many of a method's weights."""
    if kind == "int8" and METHODS.get(name).reads_base:
        lm = load_language_model(wide / "t5", quantize=kind)
        with pytest.raises(UserError, match=r"'DoRA' computes with the base model's own weights"):
            attach_method(METHODS.get(name)(), lm, Setting())
        return
    reached = []
    for quantize in (None, kind):
        lm = load_language_model(wide / "t5", quantize=quantize)
        method = attach_method(METHODS.get(name)(), lm, Setting(("a", "b"), 10, 0))
        rows = method.input_rows
        with lm.on("a"):
            lm.model.train()
            mask = torch.ones(1, IDS.shape[1] + rows, dtype=torch.long)
            ids = torch.cat([torch.zeros(1, rows, dtype=torch.long), IDS], dim=1)
            loss = lm.model(input_ids=ids, attention_mask=mask, labels=IDS).loss
            (loss + (method.batch_loss() or 0)).backward()
        grads = [p.grad for p in method.parameters()]
        assert all(grad is None or grad.isfinite().all() for grad in grads)
        reached.append([grad is not None and bool(grad.any()) for grad in grads])
    assert reached[0] == reached[1] and any(reached[0])


@there
@pytest.mark.parametrize(
    ("method", "kind"),
    [("lora", "nf4"), ("dora", "nf4"), ("mtl-lora", "nf4"), ("lora", "int8"), ("mtl-lora", "int8")],
)
def test_from_training_to_export(
    method: str,
    kind: str,
    wide: Path,
    bench: Path,
    tmp_path: Path,
) -> None:
    """What is exported is a whole model, which computes what the adapter does on whole weights."""
    run, task = tmp_path / "run", None
    argv = ["train", "--model", str(wide / "llama"), "--tasks", str(bench / "mood"), *SMALL]
    argv += ["--space", "none", "--method", method, "--quantize", kind, "--learning-rate", "0.05"]
    assert peml.__main__.main([*argv, "--baseline", "none", "--out", str(run)]) == 0
    assert read_manifest(run).quantize == kind
    assert peml.__main__.main(["evaluate", str(run)]) == 0

    adapted = load(run, device="cpu")
    assert adapted.lm.quantize == kind
    if METHODS.get(method).needs_task:
        task = "mood"
    export(run, tmp_path / "out", "merged", task=task)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert getattr(plain.config, "quantization_config", None) is None
    with torch.no_grad(), adapted.lm.on("mood"):
        expected, found = adapted.model(IDS).logits, plain(IDS).logits
    base = logits(load_language_model(wide / "llama", quantize=kind))
    tolerance = {"nf4": 1e-4, "int8": 0.1}[kind] * float(expected.abs().max())
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)
    assert (expected - base).abs().max() > {"nf4": 1e-3, "int8": 0.1}[kind]


@there
def test_full_fine_tuning_is_refused(kind: str, wide: Path) -> None:
    lm = load_language_model(wide / "llama", quantize=kind)
    with pytest.raises(UserError, match=r"method 'full'.*quanti[sz]e"):
        attach_method(METHODS.get("full")(), lm, Setting())


@there
def test_weights_that_do_not_come_back_are_refused(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"n_embd": 64, "n_layer": 1, "n_head": 4, "vocab_size": 40}
    GPT2LMHeadModel(GPT2Config(**sizes)).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"key 'quantize': .* is a Conv1D layer"):
        load_language_model(tmp_path, quantize="nf4")


@there
def test_rows_that_bitsandbytes_spoils_on_a_cpu_are_refused(bench: Path) -> None:
    """Which it does: blocks of 64 weights lie across rows there."""
    import bitsandbytes as bnb

    torch.manual_seed(0)
    for width, good in ((32, False), (96, False), (64, True), (128, True)):
        weight = torch.randn(64, width)
        kept, state = bnb.functional.quantize_4bit(weight, quant_type="nf4")
        off = (bnb.functional.dequantize_4bit(kept, state) - weight).norm() / weight.norm()
        assert bool(off < 0.15) is good
    with pytest.raises(UserError, match=r"layers alone that read a multiple of 64 numbers"):
        load_language_model(bench / "llama", quantize="nf4")


def refused(bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> str:
    """Return the one line that a run ends with which can't quantise; nothing is left of it."""
    before = digest(tmp_path)
    capsys.readouterr()
    argv = ["train", "--model", str(bench / "llama"), "--tasks", str(bench / "mood"), *SMALL]
    argv += ["--space", "none", "--method", "lora", "--quantize", kind]
    assert peml.__main__.main([*argv, "--out", str(tmp_path / "run")]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("error: ") and err.count("\n") == 1 and not out
    assert digest(tmp_path) == before
    return err


@pytest.mark.parametrize("name", KINDS)
def test_it_is_refused_without_bitsandbytes(
    name: str,
    bench: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    said = refused(bench, tmp_path, capsys, name)
    assert "'quantize'" in said and "pip install 'prefixnas[quantize]'" in said


@there
@pytest.mark.parametrize("name", KINDS)
def test_it_is_refused_where_bitsandbytes_cannot_compute(
    name: str,
    bench: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As on a CPU that it was not built for."""
    import bitsandbytes as bnb

    def missing(*_: object, **__: object) -> None:
        raise NotImplementedError("no kernel for this device\nand more")

    for layer in (bnb.nn.Linear4bit, bnb.nn.Linear8bitLt):
        monkeypatch.setattr(layer, "forward", missing)
    said = refused(bench, tmp_path, capsys, name)
    assert f"does not compute '{name}' on 'cpu' here" in said and "no kernel for this" in said


def test_an_unknown_kind_is_refused(
    bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "'nf5': did you mean 'nf4'?" in refused(bench, tmp_path, capsys, "nf5")


def test_gguf_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(UserError, match="a GGUF file is quantised in its own way"):
        load_language_model(tmp_path / "model.gguf", quantize="nf4")
