"""What an adapter folder holds, as its `peml.json` says.

An *adapter folder* is small and holds what was trained, the base model by name::

    peml.json            what it is: base model, sites of the prefix, tasks, heads
    prefix.safetensors   "blocks" [sites, 2, kv_heads, l, head_dim], head gates multiplied in;
                         "prefix" in its metadata: attention and sites, as JSON
    heads.safetensors    the task heads of an encoder-only model
    lora/                a plain PEFT adapter
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from peml.adapters.files import MANIFEST, adapter_folder
from peml.prefix.kinds import prefix_attention
from peml.prefix.sites import Site
from prefixnas.base.errors import UserError

VERSION, OLDEST = 3, 2
"""The format that is written, and the earliest that can be read: 2 knew `concat` alone."""


@dataclass(frozen=True)
class Manifest:
    """What `peml.json` says.

    Attributes:
        base: Name of the base model; None where the folder holds the (merged) model itself.
        family: ``"decoder"``, ``"encoder-decoder"`` or ``"encoder"``.
        architecture: transformers' name of the architecture ("llama").
        sites: Where the prefix goes; empty without a prefix.
        prefix_length: Number of virtual tokens, 0 without a prefix.
        attention: How the prefix is read, ``"parallel"`` or ``"concat"``.
        lora: Kind of LoRA in ``lora/``; None where there is none (left).
        heads: ``hidden_size``, ``outputs``, ``pooling``, ``choices`` of the `TaskHeads`, or None.
        tasks: One JSON object a task, as the caller of `save_adapter` gave them.
        examples: Token ids of a few examples that it was trained for, ``prompt`` and ``answer``:
            what an export is compared on.
        version: Version of the format.
    """

    base: str | None
    family: str
    architecture: str
    sites: tuple[Site, ...] = ()
    prefix_length: int = 0
    attention: str = "concat"
    lora: str | None = None
    heads: Mapping[str, Any] | None = None
    tasks: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    examples: Sequence[Mapping[str, Sequence[int]]] = field(default_factory=tuple)
    version: int = VERSION

    @property
    def sources(self) -> list[str]:
        """Where the tasks came from that it was trained on, as `load_tasks` takes them.

        Raises:
            UserError: The manifest does not say so for each of them.
        """
        if not all("source" in task for task in self.tasks):
            raise UserError("the adapter does not say where its tasks came from: name the tasks")
        return [task["source"] for task in self.tasks]

    def choices(self, task: str) -> tuple[str, ...]:
        """Return the choices that all examples of a task had in training; empty: own lists."""
        found = (known for known in self.tasks if known.get("name") == task)
        return tuple(next(found, {}).get("choices", ()))

    @property
    def max_length(self) -> int | None:
        """The longest input that it was trained on, in tokens, where that is known."""
        return next((task.get("max_length") for task in self.tasks), None)

    def write(self, folder: Path) -> None:
        """Write `peml.json` into a folder."""
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False)
        (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read `peml.json` from a folder.

        Raises:
            UserError: There is none, or it is damaged or of another version.
        """
        path = folder / MANIFEST
        if not folder.is_dir():
            raise UserError(f"adapter folder {str(folder)!r} does not exist")
        if not path.is_file():
            raise UserError(f"{folder} is no adapter folder: it has no {MANIFEST}")
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            version = int(data["version"])
            if version > VERSION:
                raise UserError(
                    f"{path}: format version {version} is newer than this installation ({VERSION})"
                )
            if version < OLDEST:
                raise UserError(
                    f"{path}: format version {version} is of an earlier version, which kept keys "
                    "at other positions; train again"
                )
            data["sites"] = tuple(Site(**site) for site in data["sites"])
            manifest = cls(**{**data, "version": VERSION})
            prefix_attention(manifest.attention, str(path))
            return manifest
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path}: damaged: {error}") from error


def read_manifest(folder: str | Path) -> Manifest:
    """Read the manifest of an adapter folder, or of a run directory that has one.

    Raises:
        UserError: There is none, or it is damaged or of another version.
    """
    return Manifest.read(adapter_folder(folder))
