"""What an adapter folder holds, as its `peml.json` says.

An *adapter folder* is small and holds what was trained, the base model by name::

    peml.json            what it is: base model, sites of the prefix, tasks, heads, hashes
    prefix.safetensors   "blocks" [sites, 2, kv_heads, l, head_dim], head gates multiplied in;
                         "prefix" in its metadata: attention and sites, as JSON
    heads.safetensors    the task heads of an encoder-only model
    lora/                a plain PEFT adapter
    method.safetensors   what a method trained that is none of PEFT's kinds of LoRA
    tokenizer.json ...   the base model's tokenizer
    README.md            the model card of a run that is done
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from peml.adapters.files import MANIFEST, adapter_folder, hashes, read_object
from peml.adapters.places import found_from, path_from
from peml.answers.heads import Pooling
from peml.methods.lora_kinds import LORA_KINDS
from peml.methods.method import METHODS, Method, Setting
from peml.model.model import Family
from peml.model.quantize import Quantize
from peml.prefix.kinds import prefix_attention
from peml.prefix.sites import Site, SiteKind
from peml.tasks.chat import Turn
from peml.tasks.spec import Chat, TaskKind
from peml.tasks.templates import check_template
from prefixnas.base.errors import UserError, brief, unknown
from prefixnas.base.files import write_text
from prefixnas.base.options import Options, default_of, make, option, resolve

VERSION, OLDEST = 5, 2
"""The format that is written, and the earliest that can be read: 2 knew `concat` alone, 3 held no
hashes of its files, 4 knew no methods but LoRA, full paths alone, and not what `peml predict` needs
of a task."""

_HASHED = 4
"""The first format with hashes."""

_SIZE = 10**7
"""Bytes that a manifest may have."""


@dataclass(frozen=True)
class Manifest(Options):
    """What `peml.json` says.

    Attributes:
        base: Name of the base model, a folder or file by its full path; None where the folder holds
            the (merged) model itself.
        family: ``"decoder"``, ``"encoder-decoder"`` or ``"encoder"``.
        architecture: transformers' name of the architecture ("llama").
        sites: Where the prefix goes; empty without a prefix.
        prefix_length: Number of virtual tokens, 0 without a prefix.
        attention: How the prefix is read, ``"parallel"`` or ``"concat"``.
        lora: Kind of LoRA in ``lora/``; None where there is none (left).
        method: ``name``, ``options`` and ``tasks`` of another method, whose weights are in
            ``method.safetensors``; None where there is none.
        heads: ``hidden_size``, ``outputs``, ``pooling``, ``choices`` of the `TaskHeads`, or None.
        tasks: One JSON object a task, as the caller of `save_adapter` gave them.
        examples: Token ids of a few examples that it was trained for, ``prompt`` and ``answer``:
            what an export is compared on.
        revision: Which commit of a base model on the hub it was trained on.
        quantize: How the base model was quantised while it was trained on; None: not at all.
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
    method: Mapping[str, Any] | None = None
    heads: Mapping[str, Any] | None = None
    tasks: Sequence[Mapping[str, Any]] = ()
    examples: Sequence[Mapping[str, Sequence[int]]] = ()
    revision: str | None = None
    quantize: Quantize | None = None
    files: Mapping[str, str] | None = None
    version: int = VERSION

    def __post_init__(self) -> None:
        super().__post_init__()
        prefix_attention(self.attention, "key 'attention'")
        if self.lora is not None and self.lora not in LORA_KINDS:
            raise unknown("kind of LoRA", self.lora, LORA_KINDS, "key 'lora'")
        if self.method is not None:
            self.trained_method()
        if bool(self.sites) != bool(self.prefix_length):
            raise UserError("keys 'sites' and 'prefix_length': a prefix has both, or neither")
        if self.family == "encoder" or self.heads is None:
            return
        raise UserError(f"key 'heads': a model of the family {self.family!r} has none")

    def on(self, model: str | Path | None, folder: Path) -> Manifest:
        """Return the manifest with another name of the base model; None: as it is.

        Args:
            model: Hub id, folder or file of the same model elsewhere.
            folder: The adapter folder, for messages.

        Raises:
            UserError: The folder holds its model itself.
        """
        if model is None:
            return self
        if self.base is None:
            raise UserError(f"{folder}: holds its model itself; leave --model out")
        return replace(self, base=str(model), revision=None)

    def of(self, task: str | None) -> Manifest:
        """Return the manifest of a model for one of the tasks; None: for all of them."""
        if task is None:
            return self
        return replace(self, tasks=[each for each in self.tasks if each.get("name") == task])

    def trained_method(self) -> tuple[Method, Setting]:
        """Return the method that was trained, with its options, and what it was attached for.

        Raises:
            UserError: Unknown method, or an option that is not allowed.
        """
        known: _Method = _checked(_Method, dict(self.method or {}), "key 'method'")
        cls: Any = METHODS.get(known.name, "key 'method'")
        made: Method = _checked(cls, known.options, f"options of the method {known.name!r}")
        return made, Setting(tuple(known.tasks), trains=False)

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

    def scale(self, task: str) -> tuple[float, float] | None:
        """Return mean and deviation of a task's labels in training; None: they are not known."""
        found = next((known for known in self.tasks if known.get("name") == task), {})
        return tuple(found["scale"]) if "scale" in found else None

    @property
    def longest_answers(self) -> dict[str, int]:
        """Most tokens of an answer in training by task, where they are known."""
        known = [task for task in self.tasks if "longest_answer" in task]
        return {str(task.get("name")): task["longest_answer"] for task in known}

    @property
    def talks(self) -> bool:
        """Whether all that it was trained on are conversations, by a chat template."""
        return bool(self.tasks) and all(task.get("chat") == "auto" for task in self.tasks)

    @property
    def silent(self) -> bool:
        """Whether conversations are among what it was trained on, and all were read as text."""
        return {task["chat"] for task in self.tasks if task.get("chat")} == {"off"}

    def chat(self, name: str) -> Chat:
        """Return how conversations of a task are to be read: as in training."""
        known = {task.get("name"): task.get("chat") for task in self.tasks}
        ways = [known[name]] if name in known else [*known.values()]
        return "off" if "off" in ways else "auto"

    @property
    def max_length(self) -> int | None:
        """The longest input that it was trained on, in tokens, where that is known."""
        return next((task.get("max_length") for task in self.tasks), None)

    def write(self, folder: Path, name: Path | None = None) -> None:
        """Write `peml.json` into a folder that holds all other files.

        The base model and the tasks are named by their paths from the folder, so that all of them
        can be moved together.

        Args:
            folder: The folder.
            name: Where it will lie in the end; None: where it is.

        Raises:
            UserError: It cannot be written.
        """
        home = (name or folder).expanduser().resolve()
        known = {**asdict(self), "files": hashes(folder)}
        if self.quantize is None:
            del known["quantize"]  # versions that do not know the key can read it
        known["base"] = None if self.base is None else path_from(home, self.base)
        known["tasks"] = [
            {**task, "source": path_from(home, task["source"])} if "source" in task else task
            for task in known["tasks"]
        ]
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
        made = _made({**data, "version": VERSION}, str(path))
        base, tasks = found_from(folder.resolve(), made.base, made.tasks)
        return replace(made, base=base, tasks=tasks)


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
class _Method(Options):
    name: str
    options: dict[str, Any]
    tasks: list[str]


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
    kind: TaskKind = "choice"
    template: str = ""
    choices_field: str | None = None
    max_new_tokens: int | None = option(None, "", at_least=1)
    longest_answer: int = option(0, "", at_least=0)
    shots: int = option(0, "", at_least=0)
    num_beams: int = option(1, "", at_least=1)
    chat: Chat | None = None
    scale: list[float] = option([0.0, 1.0], "")

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.scale) != 2 or not self.scale[1] > 0 or not all(map(math.isfinite, self.scale)):
            raise UserError("key 'scale': must be a mean and a deviation above 0")
        try:
            check_template(self.template)
        except ValueError as error:
            raise UserError(f"key 'template': malformed template: {error}") from error


@dataclass(frozen=True)
class _Shot(Options):
    prompt: str
    answer: str
    turns: list[list[str]] = option([], "")

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(len(turn) != len(Turn._fields) for turn in self.turns):
            raise UserError("key 'turns': a turn is a role and a text")


_WITH_TEMPLATE = ("kind", "longest_answer")
"""What a task says that keeps its template: enough to answer new records."""


@dataclass(frozen=True)
class _Example(Options):
    prompt: list[int] = option([], "", at_least=0)
    answer: list[int] = option([], "", at_least=0)


def _made(data: Mapping[str, Any], path: str) -> Manifest:
    """Check all keys of a manifest, those inside of others too."""
    keys = ("sites", "tasks", "examples")
    listed = {key: _objects(data.get(key, []), key, path) for key in keys}
    sites = [_checked(_Site, site, f"{path}: key 'sites'") for site in listed["sites"]]
    for task in listed["tasks"]:
        used = {entry.name: task[entry.name] for entry in fields(_Task) if entry.name in task}
        _checked(_Task, used, f"{path}: key 'tasks'")
        for shot in _objects(task.get("shown", []), "shown", f"{path}: key 'tasks'"):
            _checked(_Shot, shot, f"{path}: key 'shown'")
        if "template" in task and (missing := [k for k in _WITH_TEMPLATE if k not in task]):
            raise UserError(f"{path}: key 'tasks': key {missing[0]!r} is missing")
    for example in listed["examples"]:
        _checked(_Example, example, f"{path}: key 'examples'")
    if data.get("heads") is not None:
        _checked(_Heads, data["heads"], f"{path}: key 'heads'")
    known = {**data, "sites": tuple(Site(**vars(site)) for site in sites)}
    made: Manifest = _checked(Manifest, known, path)
    return made


def _objects(items: Any, key: str, where: str) -> list[dict[str, Any]]:
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise UserError(f"{where}: key {key!r}: must be a list of objects, not {brief(items)}")
    return items


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


def read_manifest(folder: str | os.PathLike[str]) -> Manifest:
    """Read the manifest of an adapter folder, or of a run directory that has one.

    Raises:
        UserError: There is none, or it is damaged or of another version.
    """
    return Manifest.read(adapter_folder(folder))
