"""What an adapter folder holds, as its `peml.json` says.

An *adapter folder* is small and holds what was trained, the base model by name::

    peml.json            what it is: base model, sites of the prefix, tasks, heads, hashes
    prefix.safetensors   "blocks" [sites, 2, kv_heads, l, head_dim], head gates multiplied in;
                         "prefix" in its metadata: attention and sites, as JSON
    heads.safetensors    the task heads of an encoder-only model
    lora/                a plain PEFT adapter
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from peml.adapters.files import MANIFEST, adapter_folder, hashes, read_object
from peml.answers.heads import Pooling
from peml.lora import LORA_KINDS
from peml.model.model import Family
from peml.prefix.kinds import prefix_attention
from peml.prefix.sites import Site, SiteKind
from prefixnas.base.errors import UserError, brief, unknown
from prefixnas.base.files import write_text
from prefixnas.base.options import Options, default_of, make, option, resolve

VERSION, OLDEST = 4, 2
"""The format that is written, and the earliest that can be read: 2 knew `concat` alone, and 3 held
no hashes of its files."""

_HASHED = 4
"""The first format with hashes."""

_SIZE = 10**7
"""Bytes that a manifest may have."""


@dataclass(frozen=True)
class Manifest(Options):
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
        files: SHA-256 of each file that holds what was trained; None: an earlier format.
        version: Version of the format.

    Raises:
        UserError: A value that is not allowed, or that does not go with another.
    """

    base: str | None
    family: Family
    architecture: str
    sites: tuple[Site, ...] = ()
    prefix_length: int = option(0, "", at_least=0, at_most=10**6)
    attention: str = "concat"
    lora: str | None = None
    heads: Mapping[str, Any] | None = None
    tasks: Sequence[Mapping[str, Any]] = ()
    examples: Sequence[Mapping[str, Sequence[int]]] = ()
    files: Mapping[str, str] | None = None
    version: int = VERSION

    def __post_init__(self) -> None:
        super().__post_init__()
        prefix_attention(self.attention, "key 'attention'")
        if self.lora is not None and self.lora not in LORA_KINDS:
            raise unknown("kind of LoRA", self.lora, LORA_KINDS, "key 'lora'")
        if bool(self.sites) != bool(self.prefix_length):
            raise UserError("keys 'sites' and 'prefix_length': a prefix has both, or neither")
        if self.family == "encoder" or self.heads is None:
            return
        raise UserError(f"key 'heads': a model of the family {self.family!r} has none")

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
        """Write `peml.json` into a folder that holds all other files.

        Raises:
            UserError: It cannot be written.
        """
        known = {**asdict(self), "files": hashes(folder)}
        text = json.dumps(known, indent=2, ensure_ascii=False)
        write_text(folder / MANIFEST, text + "\n")

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
        data = read_object(path, _SIZE)
        hashed = _check_version(data.get("version"), path) >= _HASHED
        if hashed != isinstance(data.get("files"), dict):
            raise UserError(f"{path}: key 'files': must be an object of hashes")
        return _made({**data, "version": VERSION}, str(path))


def _check_version(version: Any, path: Path) -> int:
    if isinstance(version, bool) or not isinstance(version, int):
        raise UserError(f"{path}: key 'version': must be a whole number, not {brief(version)}")
    if version > VERSION:
        raise UserError(
            f"{path}: format version {version} is newer than this installation ({VERSION})"
        )
    if version < OLDEST:
        raise UserError(
            f"{path}: format version {version} is of an earlier version, which kept keys "
            "at other positions; train again"
        )
    return version


@dataclass(frozen=True)
class _Site(Options):
    path: str
    kind: SiteKind
    kv_heads: int = option(1, "", at_least=1, at_most=10**5)
    head_dim: int = option(1, "", at_least=1, at_most=10**5)


@dataclass(frozen=True)
class _Heads(Options):
    hidden_size: int = option(1, "", at_least=1, at_most=10**6)
    outputs: dict[str, int] = option({}, "", at_least=1, at_most=10**6)
    pooling: Pooling = "mean"
    choices: dict[str, list[str]] | None = None


@dataclass(frozen=True)
class _Task(Options):
    """What is used of a task; it may hold more."""

    name: str = ""
    source: str = ""
    choices: list[str] = option([], "")
    max_length: int | None = option(None, "", at_least=1)
    shots: int = option(0, "", at_least=0)
    num_beams: int = option(1, "", at_least=1)


@dataclass(frozen=True)
class _Example(Options):
    prompt: list[int] = option([], "", at_least=0)
    answer: list[int] = option([], "", at_least=0)


def _made(data: Mapping[str, Any], path: str) -> Manifest:
    """Check all keys of a manifest, those inside of others too."""
    listed = {key: data.get(key, []) for key in ("sites", "tasks", "examples")}
    for key, items in listed.items():
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise UserError(f"{path}: key {key!r}: must be a list of objects, not {brief(items)}")
    sites = [_checked(_Site, site, f"{path}: key 'sites'") for site in listed["sites"]]
    for task in listed["tasks"]:
        used = {entry.name: task[entry.name] for entry in fields(_Task) if entry.name in task}
        _checked(_Task, used, f"{path}: key 'tasks'")
    for example in listed["examples"]:
        _checked(_Example, example, f"{path}: key 'examples'")
    if data.get("heads") is not None:
        _checked(_Heads, data["heads"], f"{path}: key 'heads'")
    known = {**data, "sites": tuple(Site(**vars(site)) for site in sites)}
    made: Manifest = _checked(Manifest, known, path)
    return made


def _checked(cls: type[Any], data: Any, where: str) -> Any:
    """Make a dataclass of options from an object that must name all that has no default."""
    if not isinstance(data, dict):
        raise UserError(f"{where}: must be an object of keys, not {brief(data)}")
    needed = [entry.name for entry in fields(cls) if default_of(entry) is MISSING]
    if missing := [name for name in needed if name not in data]:
        raise UserError(f"{where}: key {missing[0]!r} is missing")
    try:
        return make(cls, resolve({"manifest": cls}, [(where, data)]))
    except UserError as error:
        said = str(error)
        raise UserError(said if said.startswith(where) else f"{where}: {said}") from error


def read_manifest(folder: str | Path) -> Manifest:
    """Read the manifest of an adapter folder, or of a run directory that has one.

    Raises:
        UserError: There is none, or it is damaged or of another version.
    """
    return Manifest.read(adapter_folder(folder))
