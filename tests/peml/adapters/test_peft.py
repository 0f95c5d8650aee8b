from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

import peml
from peml.adapters import adaption_prompt
from peml.adapters.adaption_prompt import prompts_for
from peml.adapters.export import export
from peml.adapters.peft import _check
from peml.adapters.save import save_adapter
from peml.model.load import load_language_model
from peml.prefix.handle import attach
from peml.prefix.sites import find_sites
from prefixnas.base.errors import UserError
from tests.peml import zoo
from tests.peml.adapters.trained import generated, trained
from tests.peml.model.test_model import saved


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral", "phi"])
def test_stock_peft_loads_the_export_exactly(kind: str, tmp_path: Path) -> None:
    lm, adapter = trained(kind, tmp_path, attention="concat")
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


@pytest.mark.parametrize(("kind", "attention"), [("llama", "concat"), ("narrow", "parallel")])
def test_stock_peft_needs_nothing_of_this_project(
    kind: str, attention: str, tmp_path: Path
) -> None:
    lm, adapter = trained(kind, tmp_path, attention=attention)
    export(adapter, tmp_path / "out", "peft")
    given = zoo.inputs(kind)
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
    blocks = zoo.random_blocks(sites).float()
    save_adapter(tmp_path / "adapter", lm, sites=sites, blocks=blocks, attention="concat")
    export(tmp_path / "adapter", tmp_path / "out", "peft")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "merged")
    stock = peft.PeftModel.from_pretrained(base, tmp_path / "out").eval()
    given = zoo.inputs("llama")
    with attach(lm.model, attention="concat").using(blocks):
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
def test_peft_can_not_hold_every_prefix_in_front(kind: str, reason: str, tmp_path: Path) -> None:
    _, adapter = trained(kind, tmp_path, attention="concat")
    with pytest.raises(UserError, match=reason):
        export(adapter, tmp_path / "out", "peft")
    assert not (tmp_path / "out").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base"]


@pytest.mark.parametrize("kind", ["narrow", "narrow-mistral"])
def test_stock_peft_loads_a_prefix_beside_the_text(kind: str, tmp_path: Path) -> None:
    lm, adapter = trained(kind, tmp_path)
    export(adapter, tmp_path / "out", "peft")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "merged")
    stock = peft.PeftModel.from_pretrained(base, tmp_path / "out").eval()
    assert stock.peft_config["default"].peft_type is peft.PeftType.ADAPTION_PROMPT
    given = zoo.inputs(kind)
    expected = zoo.output(lm.model, given)
    theirs = zoo.output(stock, given)
    torch.testing.assert_close(theirs.double(), expected, atol=2e-4, rtol=2e-4)
    assert torch.equal(generated(stock, given), generated(lm.model, given))
    ids = nn.functional.pad(given["input_ids"], (3, 0))
    padded = {"input_ids": ids, "attention_mask": (ids > 0).long()}
    new = [
        model.generate(**padded, max_new_tokens=5, do_sample=False, eos_token_id=None)[:, 10:]
        for model in (stock, lm.model)
    ]
    assert torch.equal(*new)


def test_a_layer_without_a_prefix_gets_a_shut_gate(tmp_path: Path) -> None:
    lm = load_language_model(saved("narrow", tmp_path / "base"))
    sites = find_sites(lm.model)[1:]
    blocks = zoo.random_blocks(sites).float()
    save_adapter(tmp_path / "adapter", lm, sites=sites, blocks=blocks)
    export(tmp_path / "adapter", tmp_path / "out", "peft")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "merged")
    stock = peft.PeftModel.from_pretrained(base, tmp_path / "out").eval()
    with attach(lm.model, sites).using(blocks):
        expected = zoo.output(lm.model, zoo.inputs("narrow"))
    theirs = zoo.output(stock, zoo.inputs("narrow"))
    torch.testing.assert_close(theirs, expected, atol=1e-4, rtol=1e-4)


def test_biases_of_keys_and_values_are_taken_into_account() -> None:
    generator = torch.Generator().manual_seed(0)
    keys, values = nn.Linear(8, 4), nn.Linear(8, 4)
    attention = nn.Module()
    attention.k_proj, attention.v_proj = keys, values
    block = torch.randn(2, 2, 3, 2, generator=generator)
    prompts = prompts_for(attention, block, "here").float()
    found = torch.stack([keys(prompts), values(prompts)])
    torch.testing.assert_close(found.view(2, 3, 2, 2).transpose(1, 2), block)


def test_projections_that_leave_something_out_are_refused() -> None:
    attention = nn.Module()
    attention.k_proj, attention.v_proj = nn.Linear(8, 4, bias=False), nn.Linear(8, 4, bias=False)
    with torch.no_grad():
        attention.v_proj.weight[3] = attention.k_proj.weight[0]
    with pytest.raises(UserError, match="'here' are not of full rank"):
        prompts_for(attention, torch.randn(2, 2, 3, 2), "here")


def test_an_export_that_is_not_exact_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, adapter = trained("narrow", tmp_path)
    right = adaption_prompt.prompts_for
    monkeypatch.setattr(adaption_prompt, "prompts_for", lambda *given: 1.01 * right(*given))
    with pytest.raises(UserError, match=r"not exact for a llama model \(logits differ by"):
        export(adapter, tmp_path / "out", "peft")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("kind", "change", "reason"),
    [
        ("t5", {}, "t5.*llama and mistral models alone.*'peml'"),
        ("bert", {}, "bert.*llama and mistral models alone.*'peml'"),
        ("qwen2", {}, "qwen2.*llama and mistral models alone.*'peml'"),
        ("llama", {}, "llama.*as wide as its hidden states, 32, not 48.*'peml'"),
        ("narrow", {"num_key_value_heads": 4}, "llama.*32 numbers can't give 64 keys.*'peml'"),
        ("narrow", {"attention_bias": True}, "llama.*bias of its output projection.*'peml'"),
    ],
)
def test_peft_can_not_hold_every_prefix_beside_the_text(
    kind: str, change: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    model = zoo.build(kind)
    for key, value in change.items():
        setattr(model.config, key, value)
    folder = saved(kind, tmp_path / "base")
    type(model)(model.config).float().save_pretrained(folder)
    lm = load_language_model(folder)
    sites = find_sites(lm.model)
    save_adapter(tmp_path / "adapter", lm, sites=sites, blocks=zoo.random_blocks(sites).float())
    with pytest.raises(UserError, match=reason):
        export(tmp_path / "adapter", tmp_path / "out", "peft")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [
        (torch.float64, 1e-4),
        (torch.float32, 1e-4),
        (torch.float16, 0.02),
        (torch.bfloat16, 0.1),
    ],
)
def test_what_differs_by_more_than_rounding_is_refused(
    dtype: torch.dtype, tolerance: float
) -> None:
    model, ours = zoo.build("narrow").to(dtype), [torch.tensor([-64.0, 8.0]), torch.zeros(2)]
    _check(model, ours, [ours[0], ours[1] + 63 * tolerance])
    for wrong in (66 * tolerance, float("nan"), float("inf")):
        for place in (0, 1):
            theirs = [logits + wrong * (place == n) for n, logits in enumerate(ours)]
            with pytest.raises(UserError, match="'peft' is not exact for a llama model"):
                _check(model, ours, theirs)
