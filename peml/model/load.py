"""Load a base language model: hub id, local folder, GGUF file or one of the embedded models."""

from __future__ import annotations

import inspect
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from peml.model.config import read_config, refuse_adapter
from peml.model.lm_head import multiply_at_once
from peml.model.model import Family, LanguageModel, family_of
from peml.model.quantize import Quantize, quantising, settle_quantized
from prefixnas.base.errors import UserError, first_line, unknown
from prefixnas.base.files import parse_json

_AUTO: dict[Family, Any] = {
    "decoder": AutoModelForCausalLM,
    "encoder-decoder": AutoModelForSeq2SeqLM,
    "encoder": AutoModel,
}
_DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
_EMBEDDED = "embedded:"


def load_language_model(
    name: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: str = "auto",
    revision: str | None = None,
    quantize: Quantize | None = None,
) -> LanguageModel:
    """Load a base model, frozen and in eval mode, and its tokenizer.

    A tokenizer without a pad token pads with its end-of-text token; padding is always masked.
    Only safetensors weights are read (GGUF apart), and no code from a model's repository is run.
    What else lies in its folder changes nothing: generation settings are not used.

    Args:
        name: Hub id, local folder, ``.gguf`` file, ``"embedded:llama"`` or ``"embedded:t5"``.
        device: Where to put the model.
        dtype: ``"auto"`` (float32 on CPU, bfloat16 on GPUs that have it), ``"float32"``,
            ``"bfloat16"``, ``"float16"``, or ``"float64"`` for exact comparisons.
        revision: Branch, tag or commit of a hub model; None: its main branch.
        quantize: ``"nf4"`` or ``"int8"``: its linear layers, but the last, hold 4 or 8 bits a
            weight, through bitsandbytes.

    Raises:
        UserError: The model can't be found, read, or is of no supported kind, or can't be
            quantised here.
    """
    _check_alone(Path(_source(str(name))[0]), str(name))
    return load_with_prefix(name, device=device, dtype=dtype, revision=revision, quantize=quantize)


def load_with_prefix(
    name: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: str = "auto",
    revision: str | None = None,
    quantize: Quantize | None = None,
) -> LanguageModel:
    """Load a base model as `load_language_model` does, also from a folder that holds a prefix.

    The caller attaches the prefix: without it, the model is not what was trained.
    """
    where, options = _source(str(name))
    from_hub = not Path(where).exists()
    if revision is not None and not from_hub:
        raise UserError(f"{name}: is no model of the hub, so it has no revision {revision!r}")
    if revision is not None:
        options = {**options, "revision": revision}
    torch_dtype = resolve_dtype(dtype, device)
    if quantize is not None and "gguf_file" in options:
        raise UserError(f"{name}: key 'quantize': a GGUF file is quantised in its own way")
    bits = quantising(quantize, torch.device(device), torch_dtype)
    config = read_config(str(name), where, options)
    family = family_of(config, str(name))
    if "gguf_file" not in options:
        _check_weights(config, str(name))
    model = _read_model(str(name), where, {**options, **bits}, config, family, torch_dtype)
    settle_quantized(model, str(name))
    tokenizer = _read_tokenizer(str(name), where, options)
    _check_sizes(model, tokenizer, str(name), gguf="gguf_file" in options)
    if family == "decoder":
        tokenizer.padding_side = "left"  # what is written follows the prompt, not the padding
    _settle_generation(model, tokenizer)
    multiply_at_once(model)
    model.requires_grad_(False)
    if not bits:
        torch.nn.Module.to(model, device)
    model.train(False)
    commit = _commit(where, revision) if from_hub else None
    return LanguageModel(model, tokenizer, family, str(name), commit, quantize)


def resolve_dtype(dtype: str, device: str | torch.device) -> torch.dtype:
    """Turn a dtype's name into a torch dtype; ``"auto"`` picks what the device is fast at."""
    if dtype == "auto":
        # bfloat16 on a CPU without AMX or AVX512-BF16 is some 60 times slower than float32.
        on_gpu = torch.device(device).type == "cuda" and torch.cuda.is_available()
        return torch.bfloat16 if on_gpu and torch.cuda.is_bf16_supported() else torch.float32
    if dtype not in _DTYPES:
        raise unknown("dtype", dtype, ["auto", *_DTYPES])
    return _DTYPES[dtype]


def _source(name: str) -> tuple[str, dict[str, str]]:
    """Return what transformers loads from, and extra options, for a model's name."""
    if name.startswith(_EMBEDDED):
        return str(_embedded_folder(name.removeprefix(_EMBEDDED))), {}
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise UserError(f"model file {name!r} does not exist")
        return str(path.parent), {"gguf_file": path.name}
    if path.is_dir():
        if not (path / "config.json").is_file():
            if (path / "adapter_config.json").is_file() or (path / "adapter").is_dir():
                raise UserError(
                    f"model folder {name!r} holds an adapter without its model; name the model"
                )
            raise UserError(f"model folder {name!r} has no config.json")
        return str(path), {}
    if path.exists():
        raise UserError(f"model {name!r} is a file: give a folder, a .gguf file or a hub id")
    # A hub id is NAME or OWNER/NAME: everything else can only be meant as a folder.
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or not name:
        raise UserError(f"model folder {name!r} does not exist")
    return name, {}


def _check_alone(folder: Path, name: str) -> None:
    """Refuse a folder in which something else belongs to the weights."""
    if any((folder / file).is_file() for file in ("peml.json", "prefix.safetensors")) or (
        folder.name == "merged" and _is_prefix(folder.parent / "adapter_config.json")
    ):
        raise UserError(
            f"model folder {name!r} is an export with a prefix or heads, which would be lost; "
            "name the model that it was trained on"
        )


_PREFIXES = ("ADAPTION_PROMPT", "PREFIX_TUNING")
"""PEFT's names of what holds a prefix."""


def _is_prefix(config: Path) -> bool:
    """Tell whether a file configures a prefix of PEFT, as `peml export` writes above its model."""
    try:
        return parse_json(config.read_text("utf-8")).get("peft_type") in _PREFIXES
    except (OSError, ValueError, AttributeError):
        return False


def _check_weights(config: PreTrainedConfig, name: str) -> None:
    """Refuse quantised weights: LoRA can't be merged into them without loss."""
    if getattr(config, "quantization_config", None) is None:
        return
    quantised: Any = config.quantization_config
    known = quantised if isinstance(quantised, dict) else vars(quantised)
    raise UserError(
        f"{name}: quantised weights ({known.get('quant_method', 'unknown method')}) are not "
        "supported; take the model without quantisation"
    )


def _check_sizes(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str, *, gguf: bool
) -> None:
    """Refuse a tokenizer with tokens that the model has no embedding for.

    transformers may add tokens to those of a GGUF file, which no text has.
    """
    try:
        embeddings: Any = model.get_input_embeddings()
    except NotImplementedError:
        return
    ids = tokenizer.all_special_ids if gguf else tokenizer.get_vocab().values()
    tokens = max(ids, default=-1) + 1
    rows = getattr(embeddings, "num_embeddings", tokens)
    if tokens > rows:
        raise UserError(
            f"{name}: the tokenizer has {tokens} tokens, the model embeddings for {rows}; "
            "resize the model's embeddings, or take the tokenizer that belongs to it"
        )


def _settle_generation(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Put plain settings in the place of those that lie beside the weights: greedy is greedy."""
    if not model.can_generate():
        return
    before: Any = model.generation_config
    make_configuration: Any = GenerationConfig  # the class has no annotations
    plain = make_configuration()
    for key in ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"):
        setattr(plain, key, getattr(before, key, None))
    plain.pad_token_id = tokenizer.pad_token_id
    model.generation_config = plain


def _commit(name: str, revision: str | None) -> str | None:
    """Return the commit of a hub model that was just loaded."""
    found = try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(found).parent.name if isinstance(found, str) else None


def _embedded_folder(which: str) -> Path:
    root = Path(str(resources.files("peml"))) / "embedded"
    known = sorted(folder.parent.name for folder in root.glob("*/config.json"))
    if which not in known:
        raise unknown("embedded model", which, known)
    return root / which


def _read_model(
    name: str,
    where: str,
    options: dict[str, Any],
    config: PreTrainedConfig,
    family: Family,
    dtype: torch.dtype,
) -> PreTrainedModel:
    auto = _AUTO[family]
    extra: dict[str, Any] = dict(options)
    if "gguf_file" not in options:
        extra["use_safetensors"] = True
    if family == "encoder" and _has_pooler(config):
        extra["add_pooling_layer"] = False
    try:
        model, info = auto.from_pretrained(
            where, dtype=dtype, trust_remote_code=False, output_loading_info=True, **extra
        )
    except Exception as error:  # whatever a damaged file does to the libraries that read it
        damaged = "safetensor" in type(error).__name__.lower()
        what = "damaged weight file" if damaged else "can't load the weights of this "
        what += "" if damaged else f"{config.model_type} model"
        raise UserError(f"{name}: {what}: {first_line(error)}") from error
    if missing := sorted(key for key in info["missing_keys"] if "pooler" not in key):
        # transformers would go on with random numbers in their place.
        raise UserError(
            f"{name}: the weight file lacks {len(missing)} of the model's tensors "
            f"({missing[0]}, ...)"
        )
    if getattr(model, "peft_config", None):  # transformers found one on the hub
        raise refuse_adapter(name)
    loaded: PreTrainedModel = model
    return loaded


def _has_pooler(config: PreTrainedConfig) -> bool:
    model_class: Any = AutoModel._model_mapping[type(config)]
    return "add_pooling_layer" in inspect.signature(model_class).parameters


def _read_tokenizer(name: str, where: str, options: dict[str, str]) -> PreTrainedTokenizerBase:
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            where, trust_remote_code=False, **options
        )
    except Exception as error:  # the tokenizers library raises bare Exceptions
        raise UserError(f"{name}: no usable tokenizer: {first_line(error)}") from error
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise UserError(f"{name}: the tokenizer has neither a pad nor an end-of-text token")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
