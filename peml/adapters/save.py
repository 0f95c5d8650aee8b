"""Save what was trained as an adapter folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from peml.adapters.files import LORA, new_folder, save_heads, save_prefix
from peml.adapters.manifest import Manifest
from peml.answers.heads import TaskHeads
from peml.methods.lora_handle import LoraHandle
from peml.methods.method import METHODS, Attached
from peml.model.model import LanguageModel
from peml.prefix.sites import Site, check_blocks
from prefixnas.base.errors import UserError


def save_adapter(
    folder: str | Path,
    lm: LanguageModel,
    *,
    sites: Sequence[Site] = (),
    blocks: Tensor | None = None,
    attention: str = "parallel",
    method: Attached | None = None,
    heads: TaskHeads | None = None,
    tasks: Sequence[Mapping[str, Any]] = (),
    examples: Sequence[Mapping[str, Sequence[int]]] = (),
) -> None:
    """Write an adapter folder; one that is there is replaced when the new one is complete.

    Args:
        folder: Where to write it.
        lm: The base model that was trained on.
        sites: Where the prefix goes.
        blocks: The prefix, ``[sites, 2, kv_heads, l, head_dim]``, as `PrefixEncoder.materialise`
            computes it.
        attention: How it is read, ``"parallel"`` or ``"concat"``.
        method: What was trained in `lm`.
        heads: The task heads of an encoder-only model.
        tasks: One JSON object a task, kept in the manifest (name, kind, choices ...).
        examples: Token ids of a few examples (``prompt``, ``answer``), to compare exports on.

    Raises:
        UserError: The folder can't be written.
    """
    if blocks is not None:
        check_blocks(blocks, sites)
    manifest = Manifest(
        base=_portable_name(lm.name),
        revision=lm.revision,
        quantize=lm.quantize,
        family=lm.family,
        architecture=lm.model.config.model_type,
        sites=tuple(sites) if blocks is not None else (),
        prefix_length=blocks.shape[3] if blocks is not None else 0,
        attention=attention,
        lora=method.kind if isinstance(method, LoraHandle) else None,
        method=_describe_method(method),
        heads=_describe_heads(heads),
        tasks=tuple(tasks),
        examples=tuple(examples),
    )
    with new_folder(folder, replace=True) as new:
        if blocks is not None:
            save_prefix(blocks, sites, attention, new)
        if heads is not None:
            save_heads(heads, new)
        if method is not None:
            method.save(new / LORA if isinstance(method, LoraHandle) else new)
        lm.tokenizer.save_pretrained(new)
        manifest.write(new, Path(folder))


def _portable_name(name: str) -> str:
    """A local folder or file by its full path: the adapter may be used from elsewhere."""
    path = Path(name).expanduser()
    return str(path.resolve()) if path.exists() else name


def _describe_method(method: Attached | None) -> dict[str, Any] | None:
    """Return what it takes to attach a method again; PEFT's adapters say it themselves."""
    if method is None or isinstance(method, LoraHandle) or not method.parameters():
        return None
    name = METHODS.name_of(type(method.method))
    if name is None:
        raise UserError(
            f"method {method.method.label!r} has no name: register it, or offer it by an entry "
            "point, so that its adapters can be read"
        )
    return {"name": name, "options": vars(method.method), "tasks": list(method.tasks)}


def _describe_heads(heads: TaskHeads | None) -> dict[str, Any] | None:
    if heads is None:
        return None
    return {
        "hidden_size": heads.hidden_size,
        "outputs": dict(heads.outputs),
        "pooling": heads.pooling,
        "choices": {task: list(choices) for task, choices in heads.choices.items()},
    }
