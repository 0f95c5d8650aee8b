"""From the records of a source to examples: prompt, answer, label and choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from peml.tasks.metrics import default_metrics
from peml.tasks.sources import Record, Records
from peml.tasks.spec import TaskKind, TaskSpec
from peml.tasks.templates import MissingField, lookup, render
from prefixnas.base.errors import UserError


@dataclass(frozen=True)
class Example:
    """One example of a task.

    Attributes:
        prompt: The whole text in front of the answer.
        answer: What the model is to say: a choice, a number with one decimal, or a text.
        label: Index of the right choice, a number, or (generation) the answer again.
        id: Unique within the task: split of the source and position there.
        choices: What the answer is chosen from; empty unless the task is a choice task.
    """

    prompt: str
    answer: str
    label: int | float | str
    id: str
    choices: tuple[str, ...] = ()


def fixed_choices(spec: TaskSpec, train: Records) -> tuple[str, ...]:
    """Return the choices that the specification or the data set declare for all records."""
    if isinstance(spec.choices, tuple):
        return spec.choices
    if spec.choices is None and spec.label_map is not None:
        texts = tuple(dict.fromkeys(spec.label_map.values()))
        if not all(isinstance(text, str) for text in texts):
            raise UserError(
                f"{spec.where('label_map')}: maps to indices, which need the key 'choices'"
            )
        return tuple(str(text) for text in texts)
    return train.class_names.get(spec.label, ()) if spec.choices is None else ()


def record_choices(spec: TaskSpec, records: Records, index: int) -> tuple[str, ...]:
    """Return the choices that a record lists for itself; empty if it has none."""
    path = spec.choices if isinstance(spec.choices, str) else "choices"
    try:
        listed = lookup(records.rows[index], path)
    except MissingField as error:
        if spec.choices is None:
            return ()
        raise UserError(f"{records.where(index)}: the choices: {error}") from None
    if not isinstance(listed, list) or not all(isinstance(text, str) for text in listed):
        raise UserError(f"{records.where(index)}: {path!r} must be a list of texts")
    if len(listed) == 1 or len(set(listed)) < len(listed) or not all(t.strip() for t in listed):
        raise UserError(f"{records.where(index)}: {path!r} must be at least two different texts")
    return tuple(listed)


def infer_kind(spec: TaskSpec, train: Records, has_choices: bool) -> TaskKind:
    """Tell a task's kind from its data.

    Choices make a choice task. Without them, an answer template, ``fields.final`` or labels that
    are texts make generation, and numbers that are not all whole make regression.

    Raises:
        UserError: Whole numbers without choices: they could be indices, ratings or counts.
    """
    if has_choices:
        return "choice"
    if spec.answer is not None or all(_final(row) is not None for row in train.rows):
        return "generation"
    labels = [_label(spec, train, index) for index in range(len(train.rows))]
    if not all(_is_number(label) for label in labels):
        return "generation"
    if all(float(label).is_integer() for label in labels):
        raise UserError(
            f"{train.origin}: the labels are whole numbers and there are no choices; add choices, "
            "or say 'kind: regression' or 'kind: generation' in a task file"
        )
    return "regression"


def infer_metrics(name: str, kind: TaskKind, train: Records, spec: TaskSpec) -> tuple[str, ...]:
    """Return a task's default metrics; a generated number is matched as a number."""
    labels = [row.get(spec.label) for row in train.rows]
    if kind == "generation" and spec.answer is None and all(map(_is_number, labels)):
        return ("number_match",)
    return default_metrics(name, kind)


def _final(row: Record) -> str | None:
    fields = row.get("fields")
    final = fields.get("final") if isinstance(fields, Mapping) else None
    return final if isinstance(final, str) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _label(spec: TaskSpec, records: Records, index: int) -> Any:
    try:
        return lookup(records.rows[index], spec.label)
    except MissingField as error:
        raise UserError(f"{records.where(index)}: the label: {error}") from None


def _render(spec: TaskSpec, key: str, records: Records, index: int) -> str:
    template = getattr(spec, key)
    try:
        return render(template, records.rows[index])
    except MissingField as error:
        raise UserError(
            f"{records.where(index)}: {error}, which the {key} of {spec.where()} uses"
        ) from None
    except (ValueError, TypeError) as error:
        raise UserError(f"{spec.where(key)}: malformed format string: {error}") from error


def make_example(
    spec: TaskSpec,
    kind: TaskKind,
    choices: tuple[str, ...],
    records: Records,
    index: int,
    split: str,
) -> Example:
    """Make the example of one record.

    Args:
        spec: The task's specification.
        kind: The task's kind.
        choices: The task's choices; empty where each record has its own.
        records: Records of a split.
        index: Which record.
        split: The split's name, for the example's id.

    Raises:
        UserError: A field is missing, or the label is none of the choices or no number.
    """
    prompt = _render(spec, "template", records, index).rstrip()
    name = f"{split}:{index}"
    if kind == "generation":
        answer = _generation_answer(spec, records, index)
        return Example(prompt, answer, answer, name)
    raw = _label(spec, records, index)
    if kind == "regression":
        if not _is_number(raw):
            raise UserError(f"{records.where(index)}: label {raw!r} is not a number")
        return Example(prompt, f"{float(raw):.1f}", float(raw), name)
    choices = choices or record_choices(spec, records, index)
    if not choices:
        raise UserError(f"{records.where(index)}: the record of a choice task has no choices")
    chosen = _choice_index(spec, choices, raw)
    if chosen is None:
        shown = ", ".join(f"{number}: {choice}" for number, choice in enumerate(choices))
        raise UserError(f"{records.where(index)}: label {raw!r} is outside the choices ({shown})")
    return Example(prompt, choices[chosen], chosen, name, choices)


def _generation_answer(spec: TaskSpec, records: Records, index: int) -> str:
    if spec.answer is not None:
        answer = _render(spec, "answer", records, index)
    else:
        final = _final(records.rows[index])
        raw = _label(spec, records, index) if final is None else final
        answer = str(int(raw)) if _is_number(raw) and float(raw) == int(raw) else str(raw)
    if not answer.strip():
        raise UserError(f"{records.where(index)}: the answer is empty")
    return answer.strip()


def _choice_index(spec: TaskSpec, choices: Sequence[str], raw: Any) -> int | None:
    """Return the index of a label given as a name, an index, or a key of the label map."""
    if spec.label_map is not None:
        if str(raw) not in spec.label_map:
            return None
        raw = spec.label_map[str(raw)]
    if isinstance(raw, str):
        return choices.index(raw) if raw in choices else None
    if isinstance(raw, int | float) and float(raw).is_integer() and 0 <= raw < len(choices):
        return int(raw)
    return None
