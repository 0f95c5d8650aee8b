"""A task's specification: the keys of a YAML file, checked one by one."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from peml.tasks.values import Cell, number_of, text_of
from prefixnas.base.errors import UserError, brief, unknown
from prefixnas.base.files import read_text
from prefixnas.base.options import BOOLEANS
from prefixnas.base.yaml import SIZE, load_with_nodes

TaskKind = Literal["choice", "regression", "generation"]
TASK_KINDS: tuple[TaskKind, ...] = ("choice", "regression", "generation")
Reading = Literal["text", "index"]
READINGS: tuple[Reading, ...] = ("text", "index")
TrainOn = Literal["last", "all-assistant"]
TRAIN_ON: tuple[TrainOn, ...] = ("last", "all-assistant")
Chat = Literal["auto", "off"]
CHATS: tuple[Chat, ...] = ("auto", "off")
Name = TypeVar("Name", bound=str)
SPLITS = ("train", "selection", "validation", "test")


@dataclass(frozen=True)
class TaskSpec:
    """What a task's YAML file says; every key but ``source`` may be left out.

    Attributes:
        source: Hub dataset id, data folder, ``embedded:<task>``, or a mapping from split to file
            or list of files. Paths are relative to the YAML file. None: the file's own folder.
        name: Short name, letters, digits, ``_`` and ``-``; default: from the source.
        config: Configuration of a hub dataset.
        revision: Branch, tag or commit of a hub dataset.
        splits: Names that the source uses for ``train``, ``selection``, ``validation``, ``test``.
        template: Prompt, a format string over a record's fields; default ``{input}``.
        answer: Generation only: the text to write, a format string over a record's fields.
        label: Field that holds the label; dots reach into nested fields.
        choices: Answer texts, in the order of the label's indices; or the field of a record that
            lists them, where they differ from record to record.
        label_map: Raw label to choice (its text or index).
        label_is: ``text`` or ``index``: how labels are read where choices are numbers themselves.
        kind: ``choice``, ``regression`` or ``generation``; default: inferred from the data.
        metrics: Names of metrics; default: by name and kind of the task.
        gamma: Sampling weight of eq. 1, in (0, 1]; None: the run's.
        selection: Share of the training examples set aside for selection.
        train_limit: At most so many training examples.
        eval_limit: At most so many examples of each split that is scored.
        max_new_tokens: Generation only; default: the longest training answer.
        shots: Training examples in front of every prompt that is scored; default: the run's.
        num_beams: Generation only: beams of the search; default: the run's.
        train_on: Conversations only: ``last``, the answer alone, or ``all-assistant``, all turns of
            the assistant; default: ``last``.
        chat: Conversations only: ``auto``, by the tokenizer's chat template where it has one, or
            ``off``, as text; default: the run's.
        file: The YAML file, for messages.
        folder: What relative paths start from.
        lines: Line of every key in the file, for messages.
    """

    source: str | dict[str, list[str]] | None = None
    name: str | None = None
    config: str | None = None
    revision: str | None = None
    splits: dict[str, str] = field(default_factory=dict)
    template: str = "{input}"
    answer: str | None = None
    label: str = "label"
    choices: tuple[str, ...] | str | None = None
    label_map: dict[str, str | int] | None = None
    label_is: Reading | None = None
    kind: TaskKind | None = None
    metrics: tuple[str, ...] | None = None
    gamma: float | None = None
    selection: float | None = None
    train_limit: int | None = None
    eval_limit: int | None = None
    max_new_tokens: int | None = None
    shots: int | None = None
    num_beams: int | None = None
    train_on: TrainOn | None = None
    chat: Chat | None = None
    file: Path | None = None
    folder: Path = Path()
    lines: Mapping[str, int] = field(default_factory=dict)

    def where(self, key: str = "") -> str:
        """Return ``file, line 3, key 'choices'`` as the start of a message."""
        parts = [str(self.file or f"task {self.name or self.source or str(self.folder)!r}")]
        if key in self.lines:
            parts.append(f"line {self.lines[key]}")
        if key:
            parts.append(f"key {key!r}")
        return ", ".join(parts)


KEYS = tuple(
    entry.name
    for entry in dataclasses.fields(TaskSpec)
    if entry.name not in ("file", "folder", "lines")
)


def read_spec(path: Path) -> TaskSpec:
    """Read and check a task's YAML file.

    Raises:
        UserError: The file is missing or no YAML, a key occurs twice, or a key or value is not
            allowed.
    """
    data, node = load_with_nodes(read_text(path, SIZE), str(path))
    if not isinstance(data, dict):
        raise UserError(f"{path}: a task file is a mapping of keys (allowed: {', '.join(KEYS)})")
    lines = {str(key.value): key.start_mark.line + 1 for key, _ in node.value}
    for key, value in node.value:
        if key.value in ("choices", "label_map") and not isinstance(value, yaml.ScalarNode):
            data[key.value] = _as_written(value)
    return make_spec(data, file=path, folder=path.parent, lines=lines)


def _as_written(node: Any, *, indices: bool = False) -> Any:
    """Return choices or a label map with their texts as written: 010 and 12:30 are not numbers.

    Booleans stay what YAML takes them for, and so do the indices that labels are mapped to.
    """
    if isinstance(node, yaml.SequenceNode):
        return [_as_written(inner) for inner in node.value]
    if isinstance(node, yaml.MappingNode):
        pairs = node.value
        return {str(key.value): _as_written(value, indices=True) for key, value in pairs}
    tag = node.tag.rpartition(":")[2]
    if tag == "null":
        return None
    if tag == "bool":
        return yaml.SafeLoader.bool_values[node.value.lower()]
    is_index = indices and tag == "int" and _INDEX.fullmatch(node.value) is not None
    return int(node.value) if is_index else str(node.value)


def make_spec(
    data: Mapping[Any, Any],
    *,
    file: Path | None = None,
    folder: Path = Path(),
    lines: Mapping[str, int] | None = None,
) -> TaskSpec:
    """Check a mapping of keys and make the specification.

    Raises:
        UserError: An unknown key (with the nearest allowed one) or a value that is not allowed.
    """
    shown = {key: value for key, value in data.items() if key in ("name", "source")}
    blank = TaskSpec(
        name=str(shown["name"]) if "name" in shown else None,
        source=str(shown.get("source", "")),
        file=file,
        folder=folder,
        lines=lines or {},
    )
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key not in KEYS:
            where = blank.where().split(", key")[0]
            line = (lines or {}).get(str(key))
            raise unknown("key", key, KEYS, where + (f", line {line}" if line else ""))
        if value is None:
            continue
        try:
            values[key] = _CHECKS[key](value)
        except _Wrong as wrong:
            raise UserError(f"{blank.where(key)}: {wrong}, not {brief(value)}") from None
    return TaskSpec(**values, file=file, folder=folder, lines=lines or {})


def check_split(split: str) -> None:
    """Raise a UserError unless a split of that name exists."""
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)


_INDEX = re.compile(r"0|-?[1-9][0-9]*")


class _Wrong(ValueError):
    """A value that is not allowed; the message says what is."""


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _Wrong("must be a text")
    return value


def _name(value: Any) -> str:
    text = _text(value)
    if not text.replace("_", "").replace("-", "").isalnum():
        raise _Wrong("must be made of letters, digits, '_' and '-'")
    return text


def _source(value: Any) -> str | dict[str, list[str]]:
    if isinstance(value, str):
        return _text(value)
    if not isinstance(value, dict) or not value:
        raise _Wrong("must be a hub id, a folder, 'embedded:<task>' or a mapping of split to file")
    files: dict[str, list[str]] = {}
    for split, entry in value.items():
        if split not in SPLITS:
            raise _Wrong(f"maps the splits {', '.join(SPLITS)} to files")
        entries = entry if isinstance(entry, list) else [entry]
        if not entries or not all(isinstance(name, str) and name for name in entries):
            raise _Wrong(f"needs a file or a list of files for the split {split!r}")
        files[split] = entries
    return files


def _splits(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(
        split in SPLITS and isinstance(name, str) for split, name in value.items()
    ):
        raise _Wrong(f"must map {', '.join(SPLITS)} to the source's names of them")
    return dict(value)


def _choice_text(value: Any) -> str:
    if isinstance(value, bool):
        raise _Wrong("must quote yes, no, true and false (YAML reads them as booleans)")
    if not isinstance(value, str | int | float) or not str(value).strip():
        raise _Wrong("must be texts")
    return str(value)


def _choices(value: Any) -> tuple[str, ...] | str:
    if isinstance(value, str):
        return _text(value)
    if not isinstance(value, list):
        raise _Wrong("must be a list of at least two texts, or the field that holds one")
    choices = tuple(_choice_text(choice) for choice in value)
    if len(choices) < 2 or len(set(choices)) < len(choices):
        raise _Wrong("must be a list of at least two different texts")
    return choices


def _label_map(value: Any) -> dict[str, str | int]:
    if not isinstance(value, dict) or not value:
        raise _Wrong("must map labels of the data to choices")
    return {
        text_of(raw): choice
        if isinstance(choice, int) and not isinstance(choice, bool)
        else _choice_text(choice)
        for raw, choice in value.items()
    }


def _one_of(names: Sequence[Name]) -> Callable[[Any], Name]:
    """Return what reads one of some names, also where YAML took a bare one for a boolean."""

    def read(value: Any) -> Name:
        meant = BOOLEANS[value] if isinstance(value, bool) else (value,)
        for name in names:
            if name in meant:
                return name
        raise _Wrong(f"must be one of {', '.join(names)}")

    return read


def _metrics(value: Any) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise _Wrong("must be a metric's name or a list of them")
    return tuple(names)


def check_count(name: str, value: object, least: int = 1) -> None:
    """Refuse a number of things that a caller gave, unless it is None.

    Raises:
        UserError: It is no whole number, or less than `least`.
    """
    if value is not None and not _is_count(value, least):
        raise UserError(f"{name}: must be a whole number of at least {least}, not {brief(value)}")


def _is_count(value: Any, least: int = 1) -> bool:
    whole = not isinstance(value, bool) and isinstance(value, Integral)
    return whole and int(value) >= least


def _count(value: Any) -> int:
    if not _is_count(value):
        raise _Wrong("must be a whole number of at least 1")
    return int(value)


def _none_or_more(value: Any) -> int:
    if not _is_count(value, 0):
        raise _Wrong("must be a whole number of at least 0")
    return int(value)


def _number(value: Any) -> float:
    # 1e-1 is a text to YAML 1.1.
    number = number_of(Cell(value) if isinstance(value, str) else value)
    return float("nan") if number is None else number


def _gamma(value: Any) -> float:
    if not 0 < (number := _number(value)) <= 1:
        raise _Wrong("must be a number above 0 and at most 1")
    return number


def _share(value: Any) -> float:
    if not 0 < (number := _number(value)) < 1:
        raise _Wrong("must be a number between 0 and 1")
    return number


_CHECKS = {
    "source": _source,
    "name": _name,
    "config": _text,
    "revision": _text,
    "splits": _splits,
    "template": _text,
    "answer": _text,
    "label": _text,
    "choices": _choices,
    "label_map": _label_map,
    "label_is": _one_of(READINGS),
    "kind": _one_of(TASK_KINDS),
    "metrics": _metrics,
    "gamma": _gamma,
    "selection": _share,
    "train_limit": _count,
    "eval_limit": _count,
    "max_new_tokens": _count,
    "shots": _none_or_more,
    "num_beams": _count,
    "train_on": _one_of(TRAIN_ON),
    "chat": _one_of(CHATS),
}
