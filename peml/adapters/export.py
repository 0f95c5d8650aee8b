"""Save what was trained, turn it into something to deploy, load it again.

An *adapter folder* is small and holds what was trained, the base model by name::

    peml.json            what it is: base model, sites of the prefix, tasks, heads
    prefix.safetensors   "blocks" [sites, 2, kv_heads, l, head_dim]; "sites" in its metadata
    heads.safetensors    the task heads of an encoder-only model
    lora/                a plain PEFT adapter

`export` turns it into one of three forms (`FORMATS`). All are exact.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from peml.adapters.peft import write_peft
from peml.answers.heads import TaskHeads
from peml.lora import LoraHandle, merge_adapter
from peml.model.model import LanguageModel, load_language_model
from peml.prefix.handle import Site, attach, check_blocks
from prefixnas.base.errors import UserError, unknown

if TYPE_CHECKING:
    import torch

VERSION = 2
_MANIFEST, _PREFIX, _HEADS, _LORA = "peml.json", "prefix.safetensors", "heads.safetensors", "lora"


@dataclass(frozen=True)
class Manifest:
    """What `peml.json` says.

    Attributes:
        base: Name of the base model; None where the folder holds the (merged) model itself.
        family: ``"decoder"``, ``"encoder-decoder"`` or ``"encoder"``.
        architecture: transformers' name of the architecture ("llama").
        sites: Where the prefix goes; empty without a prefix.
        prefix_length: Number of virtual tokens, 0 without a prefix.
        lora: Kind of LoRA in ``lora/``; None where there is none (left).
        heads: ``hidden_size``, ``outputs`` and ``pooling`` of the `TaskHeads`, or None.
        tasks: One JSON object a task, as the caller of `save_adapter` gave them.
        version: Version of the format.
    """

    base: str | None
    family: str
    architecture: str
    sites: tuple[Site, ...] = ()
    prefix_length: int = 0
    lora: str | None = None
    heads: Mapping[str, Any] | None = None
    tasks: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    version: int = VERSION

    def write(self, folder: Path) -> None:
        """Write `peml.json` into a folder."""
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False)
        (folder / _MANIFEST).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read `peml.json` from a folder.

        Raises:
            UserError: There is none, or it is damaged or of another version.
        """
        path = folder / _MANIFEST
        if not folder.is_dir():
            raise UserError(f"adapter folder {str(folder)!r} does not exist")
        if not path.is_file():
            raise UserError(f"{folder} is no adapter folder: it has no {_MANIFEST}")
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            version = int(data["version"])
            if version > VERSION:
                raise UserError(
                    f"{path}: format version {version} is newer than this installation ({VERSION})"
                )
            if version < VERSION:
                raise UserError(
                    f"{path}: format version {version} is of an earlier version, which kept keys "
                    "at other positions; train again"
                )
            data["sites"] = tuple(Site(**site) for site in data["sites"])
            return cls(**data)
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path}: damaged: {error}") from error


# --- saving -------------------------------------------------------------------------------------


def save_adapter(
    folder: str | Path,
    lm: LanguageModel,
    *,
    sites: Sequence[Site] = (),
    blocks: Tensor | None = None,
    lora: LoraHandle | None = None,
    heads: TaskHeads | None = None,
    tasks: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write an adapter folder; one that is there is replaced when the new one is complete.

    Args:
        folder: Where to write it.
        lm: The base model that was trained on.
        sites: Where the prefix goes.
        blocks: The prefix, ``[sites, 2, kv_heads, l, head_dim]``, as `PrefixEncoder.materialise`
            computes it.
        lora: The LoRA layers in `lm`.
        heads: The task heads of an encoder-only model.
        tasks: One JSON object a task, kept in the manifest (name, kind, choices ...).

    Raises:
        UserError: The folder can't be written.
    """
    if blocks is not None:
        check_blocks(blocks, sites)
    manifest = Manifest(
        base=_portable_name(lm.name),
        family=lm.family,
        architecture=lm.model.config.model_type,
        sites=tuple(sites) if blocks is not None else (),
        prefix_length=blocks.shape[3] if blocks is not None else 0,
        lora=lora.kind if lora is not None else None,
        heads=_describe_heads(heads),
        tasks=tuple(tasks),
    )
    with _new_folder(folder, replace=True) as new:
        manifest.write(new)
        if blocks is not None:
            _save_prefix(blocks, sites, new)
        if heads is not None:
            save_file(_tensors(heads), new / _HEADS)
        if lora is not None:
            lora.save(new / _LORA)


def _save_prefix(blocks: Tensor, sites: Sequence[Site], folder: Path) -> None:
    """Write the blocks, and beside them which module of the model each one is for."""
    names = json.dumps([site.path for site in sites])
    save_file({"blocks": blocks.detach().cpu().contiguous()}, folder / _PREFIX, {"sites": names})


def _portable_name(name: str) -> str:
    """A local folder or file by its full path: the adapter may be used from elsewhere."""
    path = Path(name).expanduser()
    return str(path.resolve()) if path.exists() else name


def _describe_heads(heads: TaskHeads | None) -> dict[str, Any] | None:
    if heads is None:
        return None
    return {
        "hidden_size": heads.hidden_size,
        "outputs": dict(heads.outputs),
        "pooling": heads.pooling,
    }


def _tensors(heads: TaskHeads) -> dict[str, Tensor]:
    return {key: value.detach().cpu().contiguous() for key, value in heads.state_dict().items()}


# --- loading ------------------------------------------------------------------------------------


def load(
    folder: str | Path, *, device: str | torch.device = "cpu", dtype: str = "auto"
) -> LanguageModel:
    """Load an adapter folder (or a run that has one), or a folder of ``peml export``.

    LoRA is merged and the prefix attached: ``lm.model(**inputs)`` and ``lm.model.generate``
    just work. Task heads, where there are any, are `LanguageModel.heads`.

    Args:
        folder: An adapter folder, a run directory, or a folder written in the ``peml`` format.
        device: Where to put the model.
        dtype: As in `load_language_model`.

    Raises:
        UserError: The folder, or the base model that it names, can't be loaded.
    """
    folder = _adapter_folder(folder)
    manifest = Manifest.read(folder)
    lm, blocks, heads = _open(folder, manifest, device, dtype)
    if blocks is not None:
        lm.prefix = attach(lm.model, manifest.sites)
        lm.prefix.set(blocks)
    lm.heads = heads
    return lm


def read_manifest(folder: str | Path) -> Manifest:
    """Read the manifest of an adapter folder, or of a run directory that has one.

    Raises:
        UserError: There is none, or it is damaged or of a later version.
    """
    return Manifest.read(_adapter_folder(folder))


def _adapter_folder(folder: str | Path) -> Path:
    folder = Path(folder)
    inside = folder / "adapter"
    return inside if (inside / _MANIFEST).is_file() else folder


def _open(
    folder: Path, manifest: Manifest, device: str | torch.device, dtype: str
) -> tuple[LanguageModel, Tensor | None, TaskHeads | None]:
    """Return the merged model, the prefix (not attached) and the heads of a folder."""
    lm = load_language_model(manifest.base or str(folder), device=device, dtype=dtype)
    if lm.model.config.model_type != manifest.architecture:
        raise UserError(
            f"{folder}: was made for a {manifest.architecture} model, "
            f"but {lm.name} is {lm.model.config.model_type}"
        )
    if manifest.lora is not None:
        lm.model = merge_adapter(lm.model, folder / _LORA)
    blocks = _read_tensors(folder / _PREFIX)["blocks"] if manifest.sites else None
    heads = None
    if manifest.heads is not None:
        known = manifest.heads
        heads = TaskHeads(known["hidden_size"], known["outputs"], pooling=known["pooling"])
        heads.load_state_dict(_read_tensors(folder / _HEADS))
        heads.to(lm.device).requires_grad_(False)
    return lm, blocks, heads


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: damaged: {error}") from error
    return tensors


# --- exporting ----------------------------------------------------------------------------------


def export(
    adapter_folder: str | Path,
    out: str | Path,
    format: str = "peml",
    *,
    device: str | torch.device = "cpu",
    dtype: str = "auto",
) -> None:
    """Turn an adapter folder into something to deploy.

    - ``merged``: a plain Hugging Face folder of the base model with LoRA merged, for any
      runtime; the prefix lies beside it in ``prefix.safetensors``.
    - ``peft``: a stock PEFT ``PREFIX_TUNING`` adapter in `out` and the merged base model in
      ``out/merged``; no part of this project is needed to load them. Decoder-only models with
      rotary positions only.
    - ``peml``: one self-contained folder (merged model, tokenizer, prefix, heads) for
      `peml.load`, every family.

    Args:
        adapter_folder: The adapter folder, or a run directory that has one.
        out: A folder that does not exist yet, or is empty.
        format: One of `FORMATS`.
        device: Where to compute.
        dtype: Dtype of the merged weights, as in `load_language_model`.

    Raises:
        UserError: Unknown format, a model that the format can't hold, or an unusable folder.
    """
    if format not in FORMATS:
        raise unknown("export format", format, FORMATS)
    folder = _adapter_folder(adapter_folder)
    manifest = Manifest.read(folder)
    with _new_folder(out) as new:
        lm, blocks, heads = _open(folder, manifest, device, dtype)
        FORMATS[format](_Export(new, Path(out).resolve(), manifest, lm, blocks, heads))


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
        _save_prefix(job.blocks, job.manifest.sites, job.new)


def _peml(job: _Export) -> None:
    _merged(job)
    if job.heads is not None:
        save_file(_tensors(job.heads), job.new / _HEADS)
    known = {**vars(job.manifest), "base": None, "lora": None}
    Manifest(**known).write(job.new)


def _peft(job: _Export) -> None:
    if job.blocks is None:
        raise UserError(
            "this adapter has no prefix: its lora/ folder is a PEFT adapter already, "
            "or use the format 'merged'"
        )
    write_peft(job.lm, job.manifest.sites, job.blocks, job.new, job.out / "merged")
    job.lm.model.save_pretrained(job.new / "merged")
    job.lm.tokenizer.save_pretrained(job.new / "merged")


FORMATS: Mapping[str, Callable[[_Export], None]] = {
    "merged": _merged,
    "peft": _peft,
    "peml": _peml,
}
"""What `export` can write, by name."""


@contextmanager
def _new_folder(folder: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """Give a temporary folder that takes its name only when it is complete."""
    out = Path(folder)
    try:
        occupied = out.exists() and (not out.is_dir() or any(out.iterdir()))
        if occupied and not replace:
            raise UserError(f"{out} exists and is not empty: name a new folder")
        mark = uuid.uuid4().hex[:8]
        new, old = (out.with_name(f".{out.name}.{mark}.{which}") for which in ("new", "old"))
        new.mkdir(parents=True)
        try:
            yield new
            if out.exists():
                out.rename(old)
            new.rename(out)
        finally:
            shutil.rmtree(new, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise UserError(f"can't write to {out}: {error.strerror or error}") from error
