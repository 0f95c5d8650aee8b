"""Turn an adapter folder into something to deploy, in one of three forms.

All are exact: what was written is loaded and compared with the model as it was trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from peml.adapters.check import check_written, trained_outputs
from peml.adapters.files import adapter_folder, new_folder, save_heads, save_prefix
from peml.adapters.load import open_adapter
from peml.adapters.manifest import Manifest
from peml.adapters.peft import write_peft
from peml.answers.heads import TaskHeads
from peml.batches.collate import Collator
from peml.model.device import pick_device
from peml.model.model import LanguageModel
from peml.tasks.task import load_tasks
from prefixnas.base.errors import UserError, unknown


def export(
    adapter: str | Path,
    out: str | Path,
    format: str = "peml",
    *,
    device: str | torch.device = "cpu",
    dtype: str = "auto",
    model: str | Path | None = None,
) -> None:
    """Turn an adapter folder into something to deploy.

    - ``merged``: a plain Hugging Face folder of the base model with LoRA merged, for any
      runtime; the prefix lies beside it in ``prefix.safetensors``.
    - ``peft``: a stock PEFT adapter in `out` and the merged base model in ``out/merged``; no
      part of this project is needed to load them. ``ADAPTION_PROMPT`` for a prefix beside the text
      (Llama, Mistral), ``PREFIX_TUNING`` for one in front of it (decoder-only models with rotary
      positions). Compared with the run on prompts of its own tasks before it is done.
    - ``peml``: one self-contained folder (merged model, tokenizer, prefix, heads) for
      `peml.load`, every family.

    Args:
        adapter: An adapter folder, or a run directory that has one.
        out: A folder that does not exist yet, or is empty.
        format: One of `FORMATS`.
        device: Where to compute, as for `load`.
        dtype: Dtype of the merged weights, as in `load_language_model`.
        model: The base model, as for `load`.

    Raises:
        UserError: Unknown format, a model that the format can't hold, an unusable folder, or a
            result that does not compute what was trained.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> import peml
        >>> config = peml.LanguageModelConfig(tasks=["embedded:sentiment"], train_limit=20)
        >>> objective = config.build(total_steps=1, seed=0)
        >>> objective.reset(None, seed=0)  # LoRA as it starts; a run would train it now
        >>> with TemporaryDirectory() as folder:
        ...     objective.save(Path(folder, "adapter"))
        ...     peml.export(folder, Path(folder, "out"), format="peml")
        ...     adapted = peml.load(Path(folder, "out"))
        >>> adapted.manifest.base is None  # the model itself is in the folder
        True
    """
    if format not in FORMATS:
        raise unknown("export format", format, FORMATS)
    folder = adapter_folder(adapter)
    manifest = Manifest.read(folder).on(model, folder)
    device = pick_device(device)
    with new_folder(out) as new:
        expected = trained_outputs(folder, manifest, device, dtype)
        lm, blocks, heads = open_adapter(folder, manifest, device, dtype)
        FORMATS[format](_Export(new, Path(out).resolve(), manifest, lm, blocks, heads))
        written = new / "merged" if (new / "merged").is_dir() else new
        check_written(written, manifest, blocks, expected, device, dtype)


@dataclass(frozen=True)
class _Export:
    """What an export writes: `new` is the folder to fill, `out` the name it gets when done."""

    new: Path
    out: Path
    manifest: Manifest
    lm: LanguageModel
    blocks: Tensor | None
    heads: TaskHeads | None


def _merged(job: _Export) -> None:
    job.lm.model.save_pretrained(job.new)
    job.lm.tokenizer.save_pretrained(job.new)
    if job.blocks is not None:
        save_prefix(job.blocks, job.manifest.sites, job.manifest.attention, job.new)


def _peml(job: _Export) -> None:
    _merged(job)
    if job.heads is not None:
        save_heads(job.heads, job.new)
    bare = replace(job.manifest, base=None, revision=None, lora=None)
    bare.write(job.new, job.out)


def _peft(job: _Export) -> None:
    if job.blocks is None:
        raise UserError(
            "this adapter has no prefix: its lora/ folder is a PEFT adapter already, "
            "or use the format 'merged'"
        )
    known, base = job.manifest, job.out / "merged"
    prompts = _prompts(job)
    write_peft(job.lm, known.sites, job.blocks, known.attention, job.new, base, prompts)
    job.lm.model.save_pretrained(job.new / "merged")
    job.lm.tokenizer.save_pretrained(job.new / "merged")


PROMPTS = 2
"""On so many validation prompts of each task of a run its export to PEFT is checked."""


def _prompts(job: _Export) -> list[Tensor]:
    """Return prompts of the tasks that the adapter was trained on, where they are to be had."""
    try:
        tasks = load_tasks(job.manifest.sources, eval_limit=PROMPTS)
    except UserError:
        return []
    collator = Collator(job.lm, max_length=job.manifest.max_length)
    return [
        torch.tensor([collator.encode(task, example).prompt])
        for task in tasks
        for example in task.splits["validation"]
    ]


FORMATS: Mapping[str, Callable[[_Export], None]] = {
    "merged": _merged,
    "peft": _peft,
    "peml": _peml,
}
"""What `export` can write, by name."""
