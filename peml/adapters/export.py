"""Turn an adapter folder into something to deploy, in one of three forms.

All are exact: what was written is loaded and compared with the model as it was trained.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from peml.adapters.adapted import Adapted
from peml.adapters.base import load_base
from peml.adapters.card import STOCK_LORA, write_card
from peml.adapters.check import check_written, compare_outputs, trained_outputs
from peml.adapters.evaluate import as_trained, trained_tasks
from peml.adapters.files import LORA, adapter_folder, new_folder, save_heads, save_prefix
from peml.adapters.left_out import WITHOUT_HEADS, left_out
from peml.adapters.load import attach_trained, open_adapter
from peml.adapters.manifest import Manifest
from peml.adapters.origin import Origin, origin_of
from peml.adapters.peft import write_peft
from peml.adapters.stock_lora import copy_lora, with_stock_lora, write_stock_lora
from peml.answers.heads import TaskHeads
from peml.batches.collate import Collator
from peml.methods.linear import LinearTerms
from peml.model.device import pick_device
from peml.model.model import LanguageModel
from prefixnas.base.errors import UserError, unknown
from prefixnas.report.grid import in_markdown


def export(
    adapter: str | PathLike[str],
    out: str | Path,
    format: str = "peml",
    *,
    task: str | None = None,
    device: str | torch.device = "cpu",
    dtype: str = "auto",
    model: str | Path | None = None,
    warn: Callable[[str], object] = warnings.warn,
) -> None:
    """Turn an adapter folder into something to deploy.

    - ``merged``: a plain Hugging Face folder of the base model with LoRA merged, for any
      runtime; the prefix lies beside it in ``prefix.safetensors``.
    - ``peft``: a stock PEFT adapter in `out` and the merged base model in ``out/merged``; no
      part of this project is needed to load them. ``ADAPTION_PROMPT`` for a prefix beside the text
      (Llama, Mistral), ``PREFIX_TUNING`` for one in front of it (decoder-only models with rotary
      positions). Compared with the run on prompts of its own tasks before it is done.
      Without a prefix a stock adapter of the base model: PEFT's LoRA and its kin as they were
      trained, and other methods as a LoRA.
    - ``peml``: one self-contained folder (merged model, tokenizer, prefix, heads) for
      `peml.load`, every family.

    Args:
        adapter: An adapter folder, a run directory that has one, or what `train` returned.
        out: A folder that does not exist yet, or is empty.
        format: One of `FORMATS`.
        task: For which task, where the method merges into the model per task.
        device: Where to compute, as for `load`.
        dtype: Dtype of the merged weights, as in `load_language_model`.
        model: The base model, as for `load`.
        warn: Called with a line where the format leaves out what the model needs, and what its
            model card lacks.

    Raises:
        UserError: Unknown format, a method that does not merge, a task too few or too many, a
            model that the format can't hold, an unusable folder, or a result that does not compute
            what was trained.

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
    check_task(manifest, task)
    manifest = manifest.of(task)
    with new_folder(out) as new:
        expected = trained_outputs(folder, manifest, device, dtype, task)
        origin = origin_of(folder, manifest, warn).of(task)
        if format == "peft" and not manifest.sites:
            _stock_lora(new, folder, manifest, task, expected, device, dtype)
            note = "" if manifest.heads is None else WITHOUT_HEADS
            _card(new, STOCK_LORA, manifest, origin, note, warn)
            return
        lm, blocks, heads = open_adapter(folder, manifest, device, dtype, task, whole=True)
        FORMATS[format](_Export(new, Path(out).resolve(), manifest, lm, blocks, heads))
        written = new / "merged" if (new / "merged").is_dir() else new
        check_written(written, manifest, blocks, expected, device, dtype)
        trained = Adapted(lm, heads, None, manifest, folder)
        note = left_out(trained, blocks, task) if format == "merged" else ""
        _card(new, format, manifest, origin, note, warn)


def _card(
    new: Path,
    kind: str,
    manifest: Manifest,
    origin: Origin,
    note: str,
    warn: Callable[[str], object],
) -> None:
    """Write the card, and say there and to the user what was left out, if anything was."""
    if note:
        warn(note)
    write_card(new, kind, manifest, origin, note and f"> **Warning:** {in_markdown(note)}")


def check_task(manifest: Manifest, task: str | None) -> None:
    """Refuse a task too few or too many, and methods that no weights can hold.

    Raises:
        UserError: Says what is to be done.
    """
    if manifest.method is None:
        if task is not None:
            raise UserError("this adapter is the same for all tasks; leave the task out")
        return
    method, setting = manifest.trained_method()
    if method.merges == "no":
        raise UserError(
            f"method {method.label!r} cannot be put into weights: what it adds depends on the "
            "input; load it by peml.load"
        )
    if method.merges == "always" and task is not None:
        raise UserError(f"method {method.label!r} is the same for all tasks; leave the task out")
    if method.merges == "per task" and task is None:
        raise UserError(
            f"method {method.label!r} makes a model of each task: name one by --task "
            f"({', '.join(setting.tasks)})"
        )
    if task is not None and task not in setting.tasks:
        raise unknown("task", task, setting.tasks)


def _stock_lora(
    new: Path,
    folder: Path,
    manifest: Manifest,
    task: str | None,
    expected: Sequence[Tensor],
    device: str | torch.device,
    dtype: str,
) -> None:
    """Write an adapter without a prefix as a stock one of PEFT, and load it once into its base."""
    lm = load_base(folder, manifest, device, dtype, whole=True)
    if manifest.lora is not None:
        copy_lora(lm, folder / LORA, new)
    elif manifest.method is not None:
        _as_lora(lm, folder, manifest, task, new)
    else:
        raise UserError(
            "format 'peft': this adapter has neither a prefix nor a method: its model is whole; "
            "use the format 'merged'"
        )
    compare_outputs(with_stock_lora(lm, new), manifest, None, expected)


def _as_lora(
    lm: LanguageModel, folder: Path, manifest: Manifest, task: str | None, new: Path
) -> None:
    """Write a method of this project as a LoRA."""
    attached = attach_trained(lm, folder, manifest)
    if not isinstance(attached, LinearTerms):
        raise UserError(
            f"format 'peft': {manifest.trained_method()[0].label!r} is no low-rank update; "
            "use the format 'merged'"
        )
    write_stock_lora(lm, attached, task, new)
    attached.detach()


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
    bare = replace(job.manifest, base=None, revision=None, quantize=None, lora=None, method=None)
    bare.write(job.new, job.out)


def _peft(job: _Export) -> None:
    assert job.blocks is not None  # what has no prefix was written before
    known, base = job.manifest, job.out / "merged"
    prompts = _prompts(job)
    write_peft(job.lm, known.sites, job.blocks, known.attention, job.new, base, prompts)
    job.lm.model.save_pretrained(job.new / "merged")
    for folder in (job.new, job.new / "merged"):
        job.lm.tokenizer.save_pretrained(folder)


PROMPTS = 2
"""On so many validation prompts of each task of a run its export to PEFT is checked."""


def _prompts(job: _Export) -> list[Tensor]:
    """Return prompts of the tasks that the adapter was trained on, where they are to be had."""
    collator = Collator(job.lm, max_length=job.manifest.max_length)
    try:
        tasks = trained_tasks(job.manifest, eval_limit=PROMPTS, warn=lambda message: None)
        return [
            torch.tensor([collator.encode(task, example).prompt])
            for task in (as_trained(task, job.manifest) for task in tasks)
            for example in task.splits["validation"]
        ]
    except UserError:
        return []


FORMATS: Mapping[str, Callable[[_Export], None]] = {
    "merged": _merged,
    "peft": _peft,
    "peml": _peml,
}
"""What `export` can write, by name."""
