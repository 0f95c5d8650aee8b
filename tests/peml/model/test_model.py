from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, LlamaForCausalLM, PreTrainedModel

from peml.model.load import load_language_model, resolve_dtype
from peml.model.model import family_of
from peml.prefix.sites import find_sites
from prefixnas.base.errors import UserError
from tests.peml import zoo


def saved(kind: str, folder: Path) -> Path:
    """Save a tiny model with its tokenizer, in float32 as published models are."""
    lm = zoo.language_model(kind)
    lm.model.float().save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", zoo.SUPPORTED)
def test_a_folder_loads_frozen_in_eval_mode_and_computes_the_same(
    kind: str, tmp_path: Path
) -> None:
    lm = load_language_model(saved(kind, tmp_path))
    assert lm.family == zoo.family(kind)
    assert lm.name == str(tmp_path)
    assert lm.hidden_size == 32
    assert not any(module.training for module in lm.model.modules())
    assert not any(parameter.requires_grad for parameter in lm.model.parameters())
    given = zoo.inputs(kind)
    expected = zoo.output(zoo.build(kind).float(), given)
    torch.testing.assert_close(zoo.output(lm.model, given), expected)


def test_an_encoder_saved_with_a_head_loads_without_it(tmp_path: Path) -> None:
    from transformers import BertForMaskedLM

    body = zoo.build("bert").float()
    with_head = BertForMaskedLM(body.config)
    with_head.bert.load_state_dict(body.state_dict())
    with_head.save_pretrained(tmp_path)
    zoo.language_model("bert").tokenizer.save_pretrained(tmp_path)
    lm = load_language_model(tmp_path)
    given = zoo.inputs("bert")
    torch.testing.assert_close(zoo.output(lm.model, given), zoo.output(body, given))


def test_a_tokenizer_without_pad_token_pads_with_the_end_of_text(tmp_path: Path) -> None:
    saved("llama", tmp_path)
    path = tmp_path / "tokenizer_config.json"
    config = json.loads(path.read_text())
    del config["pad_token"]
    path.write_text(json.dumps(config))
    lm = load_language_model(tmp_path)
    assert lm.tokenizer.pad_token == lm.tokenizer.eos_token == "</s>"


def test_dtypes(tmp_path: Path) -> None:
    assert resolve_dtype("auto", "cpu") is torch.float32
    assert resolve_dtype("bfloat16", "cpu") is torch.bfloat16
    with pytest.raises(UserError, match="did you mean 'float32'"):
        resolve_dtype("float31", "cpu")
    saved("llama", tmp_path)
    assert load_language_model(tmp_path, dtype="float16").model.dtype is torch.float16


@pytest.mark.parametrize("name", ["embedded:llama", "embedded:t5"])
def test_embedded_models_load(name: str) -> None:
    lm = load_language_model(name)
    assert lm.family == ("decoder" if name.endswith("llama") else "encoder-decoder")
    assert lm.name == name


def test_names_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "file.txt").touch()
    for name, message in {
        str(tmp_path / "nothing"): "does not exist",
        "./nothing": "does not exist",
        "a/b/c": "does not exist",
        str(tmp_path): "has no config.json",
        str(tmp_path / "file.txt"): "is a file",
        str(tmp_path / "model.gguf"): "does not exist",
        "embedded:lama": "unknown embedded model .lama.",
    }.items():
        with pytest.raises(UserError, match=message):
            load_language_model(name)


def test_an_unreachable_hub_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("We couldn't connect to the hub.\nCheck your connection.")

    monkeypatch.setattr(AutoConfig, "from_pretrained", refuse)
    with pytest.raises(UserError) as caught:
        load_language_model("owner/model")
    assert "owner/model" in str(caught.value)
    assert "We couldn't connect" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_broken_folders(tmp_path: Path) -> None:
    whole = saved("llama", tmp_path / "whole")

    def copy(name: str) -> Path:
        return Path(shutil.copytree(whole, tmp_path / name))

    no_tokenizer = copy("no-tokenizer")
    for file in no_tokenizer.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(UserError, match="no usable tokenizer"):
        load_language_model(no_tokenizer)

    bad_tokenizer = copy("bad-tokenizer")
    (bad_tokenizer / "tokenizer.json").write_text('{"model": 1}')
    with pytest.raises(UserError, match="no usable tokenizer"):
        load_language_model(bad_tokenizer)

    no_weights = copy("no-weights")
    (no_weights / "model.safetensors").unlink()
    with pytest.raises(UserError, match="can't load the weights of this llama model"):
        load_language_model(no_weights)

    cut = copy("cut")
    weights = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(UserError, match=r"damaged|can't load"):
        load_language_model(cut)

    partial = copy("partial")
    tensors = load_file(partial / "model.safetensors")
    tensors.pop("model.layers.1.self_attn.q_proj.weight")
    save_file(tensors, partial / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lacks 1 of the model's tensors .*layers\.1"):
        load_language_model(partial)

    unreadable = copy("unreadable")
    (unreadable / "config.json").write_text("{")
    with pytest.raises(UserError, match="can't read the configuration"):
        load_language_model(unreadable)

    unknown = copy("unknown")
    config = json.loads((unknown / "config.json").read_text())
    (unknown / "config.json").write_text(json.dumps({**config, "model_type": "lllama"}))
    with pytest.raises(UserError, match="lllama"):
        load_language_model(unknown)


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    saved("llama", tmp_path)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match="can't load the weights"):
        load_language_model(tmp_path)


def test_other_architectures_are_refused_by_name() -> None:
    from transformers import ViTConfig, WhisperConfig

    for config in (ViTConfig(), WhisperConfig()):
        with pytest.raises(UserError, match=f"{config.model_type}.*not supported"):
            family_of(config, "some/model")


def write_gguf(model: PreTrainedModel, path: Path) -> None:
    """Write a tiny Llama as llama.cpp's converter does, with a byte-pair tokenizer."""
    gguf = pytest.importorskip("gguf")
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    tokens = [f"<{i}>" if i < 4 else chr(93 + i) for i in range(config.vocab_size - 1)]
    writer.add_token_list([*tokens, "ab"])
    writer.add_token_types([3] * 4 + [1] * (config.vocab_size - 4))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(3)
    names = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "model.layers": "blk",
    }
    for name, tensor in model.state_dict().items():
        weight = tensor.float()
        if "q_proj" in name or "k_proj" in name:
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            # GGUF keeps the two halves of a rotary pair next to each other.
            weight = weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        writer.add_tensor(name, weight.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_loads_and_takes_a_prefix(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = zoo.build("llama").config
    config.head_dim = 8
    model = LlamaForCausalLM(config).eval()
    write_gguf(model, tmp_path / "tiny.gguf")
    lm = load_language_model(tmp_path / "tiny.gguf")
    assert lm.family == "decoder"
    assert lm.tokenizer.pad_token_id == 3
    given = zoo.inputs("llama")
    torch.testing.assert_close(zoo.output(lm.model, given), zoo.output(model, given))
    assert [site.head_dim for site in find_sites(lm.model)] == [8, 8]


def test_a_gguf_file_without_the_reader_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny.gguf").touch()
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(UserError, match=r"pip install 'prefixnas\[gguf\]'"):
        load_language_model(tmp_path / "tiny.gguf")


def test_a_broken_gguf_file_is_named(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    (tmp_path / "tiny.gguf").write_bytes(b"no model")
    with pytest.raises(UserError, match=r"tiny\.gguf"):
        load_language_model(tmp_path / "tiny.gguf")


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.6, 0.99])
def test_a_gguf_file_that_was_cut_is_one_line(share: float, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    path = tmp_path / "tiny.gguf"
    write_gguf(zoo.build("llama"), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert refused(path).startswith(str(path))


# --- what lies beside the weights ---------------------------------------------------------------


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_language_model(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_generation_settings_beside_the_weights_are_not_used(tmp_path: Path) -> None:
    saved("llama", tmp_path)
    plain = load_language_model(tmp_path)
    settings = {"do_sample": True, "temperature": 5.0, "repetition_penalty": 9.0, "num_beams": 3}
    settings |= {"no_repeat_ngram_size": 1, "max_length": 7, "suppress_tokens": [5, 6, 7]}
    (tmp_path / "generation_config.json").write_text(json.dumps(settings))
    lm = load_language_model(tmp_path)
    prompt = torch.tensor([[5, 6, 7]])
    written = [
        model.generate(prompt, max_new_tokens=12, eos_token_id=None).tolist()
        for model in (lm.model, plain.model)
    ]
    assert written[0] == written[1]
    tokens = prompt
    for _ in range(12):
        best = plain.model(tokens).logits[:, -1].argmax(-1)
        tokens = torch.cat([tokens, best[None]], dim=1)
    assert written[0] == tokens.tolist()


def test_an_adapter_beside_the_weights_is_refused(tmp_path: Path) -> None:
    import peft

    base = zoo.build("llama").float()
    wrapped = peft.get_peft_model(base, peft.LoraConfig(target_modules=["q_proj"]))
    wrapped.save_pretrained(tmp_path / "lora")
    assert "holds an adapter without its model" in refused(tmp_path / "lora")
    shutil.copytree(tmp_path / "lora", saved("llama", tmp_path / "model"), dirs_exist_ok=True)
    assert "holds an adapter beside the model (adapter_config.json)" in refused(tmp_path / "model")


@pytest.mark.parametrize("name", ["peml.json", "prefix.safetensors"])
def test_an_export_is_no_base_model(name: str, tmp_path: Path) -> None:
    (saved("llama", tmp_path) / name).write_text("{}")
    assert "is an export with a prefix or heads, which would be lost" in refused(tmp_path)


@pytest.mark.parametrize("kind", ["PREFIX_TUNING", "ADAPTION_PROMPT"])
def test_the_model_of_a_peft_export_is_no_base_model(kind: str, tmp_path: Path) -> None:
    saved("llama", tmp_path / "merged")
    load_language_model(tmp_path / "merged")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": kind}))
    assert "is an export with a prefix" in refused(tmp_path / "merged")


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq"])
def test_quantised_weights_are_refused(method: str, tmp_path: Path) -> None:
    path = saved("llama", tmp_path) / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"] = {"quant_method": method, "load_in_4bit": True, "bits": 4}
    path.write_text(json.dumps(config))
    assert f"quantised weights ({method}) are not supported" in refused(tmp_path)


def test_remote_code_and_old_weights_are_refused(tmp_path: Path) -> None:
    path = saved("llama", tmp_path) / "config.json"
    config = json.loads(path.read_text())
    remote = {"auto_map": {"AutoConfig": "code.Own", "AutoModelForCausalLM": "code.OwnModel"}}
    path.write_text(json.dumps({**config, "model_type": "own", **remote}))
    assert "can't read the configuration" in refused(tmp_path)
    path.write_text(json.dumps(config))
    torch.save(zoo.build("llama").state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    assert "can't load the weights" in refused(tmp_path)


def test_tokens_without_embeddings_are_refused(tmp_path: Path) -> None:
    lm = zoo.language_model("llama")
    saved("llama", tmp_path)
    lm.tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    lm.tokenizer.save_pretrained(tmp_path)
    rows = zoo.VOCABULARY
    expected = f"the tokenizer has {rows + 1} tokens, the model embeddings for {rows}"
    assert expected in refused(tmp_path)


def test_decoders_pad_on_the_left(tmp_path: Path) -> None:
    assert load_language_model(saved("llama", tmp_path / "a")).tokenizer.padding_side == "left"
    assert load_language_model(saved("t5", tmp_path / "b")).tokenizer.padding_side == "right"
