"""A base model of 4 or 8 bits: what it computes, what trains on it, what is exported or refused."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

import peml.__main__
from peml.adapters.export import export
from peml.adapters.load import load
from peml.adapters.manifest import read_manifest
from peml.methods.method import METHODS, Setting, attach_method
from peml.model.model import LanguageModel, load_language_model
from peml.model.quantize import KINDS, dequantised
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


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@there
def test_what_is_frozen_takes_fewer_bits_and_computes_nearly_the_same(
    kind: str, bench: Path
) -> None:
    whole, lm = (load_language_model(bench / "llama", quantize=each) for each in (None, kind))
    bits = {"nf4": 4, "int8": 8}[kind]
    name = "model.layers.0.mlp.up_proj"
    small, large = (each.model.get_submodule(name).weight for each in (lm, whole))
    assert small.numel() * small.element_size() * 8 == large.numel() * bits
    assert lm.quantize == kind and not any(p.requires_grad for p in lm.model.parameters())
    far = (logits(lm) - logits(whole)).abs().max() / logits(whole).abs().max()
    assert 0 < far < {"nf4": 0.5, "int8": 0.1}[kind]


@there
def test_a_copy_shares_its_weights_and_computes_the_same(kind: str, bench: Path) -> None:
    lm = load_language_model(bench / "llama", quantize=kind)
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
def test_whole_weights_are_those_that_the_quantised_stand_for(kind: str, bench: Path) -> None:
    lm = load_language_model(bench / "llama", quantize=kind)
    before = logits(lm)
    whole = dequantised(lm)
    assert whole.quantize is None and whole.model.dtype is torch.float32
    # int8 rounds what its layers read as well, nf4 does not.
    tolerance = {"nf4": 1e-5, "int8": 0.1}[kind] * float(before.abs().max())
    torch.testing.assert_close(logits(whole), before, atol=tolerance, rtol=0)


@there
@pytest.mark.parametrize("name", sorted(set(METHODS.names()) - {"full", "frozen"}))
def test_methods_train_on_it(kind: str, name: str, bench: Path) -> None:
    """As on whole weights: the gradient reaches as many of a method's weights."""
    reached = []
    for quantize in (None, kind):
        lm = load_language_model(bench / "t5", quantize=quantize)
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
@pytest.mark.parametrize("method", ["lora", "dora", "mtl-lora"])
def test_from_training_to_export(
    method: str, kind: str, bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is exported is a whole model, which computes what the adapter does on whole weights."""
    run, task = tmp_path / "run", None
    argv = ["train", "--model", str(bench / "llama"), "--tasks", str(bench / "mood"), *SMALL]
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
    base = logits(load_language_model(bench / "llama", quantize=kind))
    tolerance = {"nf4": 1e-4, "int8": 0.1}[kind] * float(expected.abs().max())
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)
    assert (expected - base).abs().max() > {"nf4": 1e-3, "int8": 0.1}[kind]


@there
def test_full_fine_tuning_is_refused(kind: str, bench: Path) -> None:
    lm = load_language_model(bench / "llama", quantize=kind)
    with pytest.raises(UserError, match=f"'full': quantised weights .{kind}. cannot train"):
        attach_method(METHODS.get("full")(), lm, Setting())


@there
def test_weights_that_do_not_come_back_are_refused(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"n_embd": 32, "n_layer": 1, "n_head": 4, "vocab_size": 40}
    GPT2LMHeadModel(GPT2Config(**sizes)).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"key 'quantize': .* is a Conv1D layer"):
        load_language_model(tmp_path, quantize="nf4")


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
