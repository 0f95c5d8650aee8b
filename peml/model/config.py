"""A model's configuration, looked at before a library acts on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from prefixnas.base.errors import UserError, brief, first_line
from prefixnas.base.extras import require
from prefixnas.base.memory import memory_of_machine, refuse_beyond

_LAYERS, _LARGEST = 1000, 10**8
"""The most layers of a model, and the largest of its other sizes."""

_SIZES = {
    **dict.fromkeys(("num_hidden_layers", "num_layers", "num_decoder_layers"), _LAYERS),
    **dict.fromkeys(("n_layer", "n_layers", "encoder_layers", "decoder_layers"), _LAYERS),
    **dict.fromkeys(("hidden_size", "intermediate_size", "vocab_size", "head_dim"), _LARGEST),
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "num_heads"), _LARGEST),
    **dict.fromkeys(("max_position_embeddings", "d_model", "d_ff", "d_kv"), _LARGEST),
    **dict.fromkeys(("n_embd", "n_head", "n_positions", "n_inner"), _LARGEST),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), _LARGEST),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), _LARGEST),
}

_OURS = (None, "eager", "sdpa")
"""Attention that transformers has itself; another name may be a kernel of the hub: code."""


def read_config(name: str, where: str, options: Mapping[str, str]) -> PreTrainedConfig:
    """Read a model's configuration.

    Args:
        name: What the user calls the model.
        where: What transformers loads it from.
        options: Further options for transformers: `gguf_file`, `revision`.

    Raises:
        UserError: It cannot be read, names code, holds sizes that no model has, or the model
            cannot fit into memory.
    """
    if "gguf_file" in options:
        _check_gguf(name)
    if (Path(where) / "adapter_config.json").is_file():
        raise refuse_adapter(name)
    try:
        if "gguf_file" not in options:
            _check(PreTrainedConfig.get_config_dict(where, **options)[0], name)
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            where, trust_remote_code=False, **options
        )
        _check(config.to_dict(), name)
    except UserError:
        raise
    except Exception as error:  # whatever a damaged file does to the libraries that read it
        if Path(where).is_dir():
            raise UserError(f"{name}: can't read the configuration: {first_line(error)}") from error
        raise UserError(
            f"model {name!r} is neither a local folder nor a model the hub could give: "
            f"{first_line(error)}"
        ) from error
    _check_memory(config)
    return config


def refuse_adapter(name: str) -> UserError:
    """Return the error for a model with an adapter beside it."""
    return UserError(
        f"{name}: holds an adapter beside the model (adapter_config.json); merge it into the "
        "model, or take the file away"
    )


def _check_gguf(name: str) -> None:
    require("gguf", f"{name}: reading GGUF files")


def _check(data: Any, name: str) -> None:
    """Refuse sizes that no model has, and names of attention that may be code."""
    where = f"{name}: config.json"
    if not isinstance(data, Mapping):
        raise UserError(f"{where}: must be an object of keys, not {brief(data)}")
    for key, value in _keys(data):
        named = any(word in key for word in ("attn_implementation", "experts_implementation"))
        if named and value not in _OURS:
            raise UserError(
                f"{where}: key {key!r}: names {brief(value)}, which may be code from the hub; "
                "take the key away"
            )
        most = _SIZES.get(key)
        if most is None or value is None or isinstance(value, list | Mapping):
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise UserError(
                f"{where}: key {key!r}: must be a whole number from 1 to {most:,}, "
                f"not {brief(value)}"
            )


def _keys(data: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield all keys with their values, those inside of others too."""
    for key, value in data.items():
        if isinstance(value, Mapping) and not key.endswith("implementation"):
            yield from _keys(value)
        else:
            yield str(key), value


def _check_memory(config: PreTrainedConfig) -> None:
    """Refuse a model of which a part that every model has is larger than the machine's memory."""
    text = config.get_text_config()
    width, rows = (getattr(text, key, 0) or 0 for key in ("hidden_size", "vocab_size"))
    layers = getattr(text, "num_hidden_layers", 0) or 0
    half = 2  # bytes of a number in the smallest dtype that is loaded
    weights = (width * rows + 2 * width * width * layers) * half
    refuse_beyond({"the model": weights}, memory_of_machine())
