"""What a record's label means: the choices, the task's kind, and which choice a label names.

A label is matched with the choices' texts. It is counted, as an index, only where it can be nothing
else; where it could be either, it is refused with both readings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from peml.tasks.chat import conversation_of
from peml.tasks.fields import MissingField, lookup
from peml.tasks.files import Record, Records
from peml.tasks.metrics import default_metrics
from peml.tasks.spec import Reading, TaskKind, TaskSpec
from peml.tasks.templates import render
from peml.tasks.values import (
    NoText,
    looks_like_number,
    number_of,
    same_number,
    text_of,
    writes_number,
)
from prefixnas.base.errors import UserError

LISTED = "choices"
"""The field in which records list choices of their own, unless the task names another."""

_MOST_CHOICES = 1000
"""The most labels that are made choices of where a task says that it is one of choices."""

_MOST_CLASSES, _EACH = 20, 5
"""Labels of one file are taken for classes where they are at most so many different texts, each
with so many records on average."""

_SECRET = "-1"
"""What data sets of the hub have in the place of a label that they keep to themselves."""

_DIGIT = re.compile(r"\s*[0-9]")
_INDEX = re.compile(r"0|[1-9][0-9]*")
_FREE = "say 'kind: regression' or 'kind: generation' in a task file"


def fixed_choices(spec: TaskSpec, splits: Mapping[str, Records]) -> tuple[str, ...]:
    """Return the choices that the specification or the data set declare for all records."""
    if isinstance(spec.choices, tuple):
        return spec.choices
    if spec.choices is None and spec.label_map is not None:
        return _mapped_choices(spec)
    if spec.choices is not None:
        return ()
    train = splits["train"].class_names.get(spec.label, ())
    for records in splits.values():
        if (names := records.class_names.get(spec.label, ())) != train:
            raise UserError(
                f"{records.origin}: its label names {list(names)} are not those of "
                f"{splits['train'].origin}, {list(train)}"
            )
    return train


def _mapped_choices(spec: TaskSpec) -> tuple[str, ...]:
    texts = tuple(dict.fromkeys((spec.label_map or {}).values()))
    if not all(isinstance(text, str) for text in texts):
        raise UserError(f"{spec.where('label_map')}: maps to indices, which need the key 'choices'")
    if len(texts) < 2:
        raise UserError(f"{spec.where('label_map')}: must map to at least two different choices")
    return tuple(str(text) for text in texts)


def record_choices(spec: TaskSpec, records: Records, index: int) -> tuple[str, ...]:
    """Return the choices that a record lists for itself; empty if it has none."""
    path = spec.choices if isinstance(spec.choices, str) else LISTED
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


def label_choices(spec: TaskSpec, splits: Mapping[str, Records]) -> tuple[str, ...]:
    """Return the labels of all records as choices, in alphabetical order.

    Raises:
        UserError: A label is missing or empty, differs from another by blanks alone, there is only
            one, or there are too many.
    """
    texts: dict[str, str] = {}
    for records in splits.values():
        for index in range(len(records.rows)):
            text = text_of(label_at(spec, records, index))
            if not text.strip():
                raise UserError(f"{records.where(index)}: the label is empty")
            if (known := texts.setdefault(text.strip(), text)) != text:
                raise UserError(
                    f"{records.where(index)}: the label {text!r} differs from another, {known!r}, "
                    "by blanks alone"
                )
    if len(texts) < 2:
        raise UserError(
            f"{spec.where('label')}: every label is {min(texts)!r}, and a choice task needs two"
        )
    if len(texts) > _MOST_CHOICES:
        raise UserError(
            f"{spec.where('label')}: {len(texts)} different labels are too many to be choices "
            f"(at most {_MOST_CHOICES}); name them as 'choices'"
        )
    return tuple(sorted(texts.values()))


def are_texts(spec: TaskSpec, splits: Mapping[str, Records]) -> bool:
    """Tell whether all labels are texts, and none of them a number or a boolean."""
    pairs = [(found, index) for found in splits.values() for index in range(len(found.rows))]
    return all(_kind_of_label(label_at(spec, *pair)) == "text" for pair in pairs)


def labels_repeat(spec: TaskSpec, records: Records) -> bool:
    """Tell whether labels are few and come again and again, and so are classes."""
    if any(final_of(spec, row) is not None for row in records.rows):
        return False
    labels = [label_at(spec, records, index) for index in range(len(records.rows))]
    different = len({text_of(label) for label in labels})
    return 2 <= different <= _MOST_CLASSES and len(labels) >= _EACH * different


def lists_choices(spec: TaskSpec, splits: Mapping[str, Records]) -> bool:
    """Tell whether any record lists choices of its own."""
    return any(
        record_choices(spec, found, index)
        for found in splits.values()
        for index in range(len(found.rows))
    )


def label_at(spec: TaskSpec, records: Records, index: int) -> Any:
    """Return a record's label as the record holds it.

    Raises:
        UserError: There is none, or it is NaN.
    """
    try:
        raw = lookup(records.rows[index], spec.label)
        text_of(raw)
    except MissingField as error:
        raise UserError(f"{records.where(index)}: the label: {error}") from None
    except NoText as error:
        raise UserError(f"{records.where(index)}: the label {error}") from None
    return raw


def is_labelled(spec: TaskSpec, records: Records, *, talks: bool) -> bool:
    """Tell whether any record has an answer: those of a benchmark's test may be kept secret.

    Args:
        spec: The task's specification.
        records: The records of a split.
        talks: Whether the task's records are conversations.
    """
    known = _has_answer if talks else _has_text if spec.answer is not None else _has_label
    return any(known(spec, records, index) for index in range(len(records.rows)))


def _has_answer(spec: TaskSpec, records: Records, index: int) -> bool:
    try:
        conversation_of(records.rows[index], records.where(index))
    except UserError:
        return False
    return True


def _has_text(spec: TaskSpec, records: Records, index: int) -> bool:
    try:
        return bool(render(spec.answer or "", records.rows[index]).strip())
    except (MissingField, NoText):
        return False


def _has_label(spec: TaskSpec, records: Records, index: int) -> bool:
    if final_of(spec, records.rows[index]) is not None:
        return True
    try:
        text = text_of(lookup(records.rows[index], spec.label)).strip()
    except (MissingField, NoText):
        return False
    return bool(text) and (text != _SECRET or text in (spec.label_map or {}))


def final_of(spec: TaskSpec, row: Record) -> str | None:
    """Return the text in ``fields.final``, the answer to write unless the task says another."""
    fields = row.get("fields")
    final = fields.get("final") if isinstance(fields, Mapping) else None
    usable = spec.answer is None and spec.label == TaskSpec.label
    return final if usable and isinstance(final, str) else None


def infer_kind(spec: TaskSpec, splits: Mapping[str, Records], choices: tuple[str, ...]) -> TaskKind:
    """Tell a task's kind from all its records.

    Choices make a choice task. Without them, an answer template, ``fields.final`` or labels that
    are texts make generation, and numbers that are not all whole make regression.

    Raises:
        UserError: Records that would make tasks of different kinds, or whole numbers without
            choices: they could be indices, ratings or counts.
    """
    pairs = [(found, index) for found in splits.values() for index in range(len(found.rows))]
    if choices or lists_choices(spec, splits):
        return "choice"
    if spec.answer is not None:
        return "generation"
    if any(final_of(spec, found.rows[index]) is not None for found, index in pairs):
        return "generation"
    labels = [label_at(spec, *pair) for pair in pairs]
    kinds = [_kind_of_label(label) for label in labels]
    for kind in kinds:
        if kind == "boolean":
            where = pairs[kinds.index(kind)]
            raise UserError(
                f"{where[0].where(where[1])}: the label is a boolean and there are no choices; "
                "add choices and a label_map to a task file"
            )
    if len(set(kinds)) > 1:
        raise _mixed(pairs, labels, kinds)
    if kinds[0] == "text":
        return "generation"
    if all(float(number_of(label) or 0).is_integer() for label in labels):
        raise UserError(
            f"{splits['train'].origin}: the labels are whole numbers and there are no choices; "
            f"add choices, or {_FREE}"
        )
    return "regression"


def _kind_of_label(label: Any) -> str:
    if isinstance(label, bool):
        return "boolean"
    return "number" if looks_like_number(label) else "text"


def _mixed(
    pairs: Sequence[tuple[Records, int]], labels: Sequence[Any], kinds: Sequence[str]
) -> UserError:
    rare = min(("number", "text"), key=kinds.count)
    first = kinds.index(rare)
    records, index = pairs[first]
    shown = "a number" if rare == "number" else "not a number"
    return UserError(
        f"{records.where(index)}: label {shown_label(labels[first])} is {shown}, as in "
        f"{kinds.count(rare)} of {len(kinds)} records; mend the data, or {_FREE}"
    )


def infer_metrics(
    name: str, kind: TaskKind, splits: Mapping[str, Records], spec: TaskSpec
) -> tuple[str, ...]:
    """Return a task's default metrics; a generated number is matched as a number."""
    if kind != "generation" or spec.answer is not None:
        return default_metrics(name, kind)
    rows = [row for found in splits.values() for row in found.rows]
    if all(_is_number(spec, row) for row in rows):
        return ("number_match",)
    return default_metrics(name, kind)


def _is_number(spec: TaskSpec, row: Record) -> bool:
    try:
        return looks_like_number(lookup(row, spec.label))
    except MissingField:
        return False


class NoChoice(ValueError):
    """A label that names none of the choices, or two; the message says so."""


def chosen(spec: TaskSpec, choices: Sequence[str], raw: Any, declared: bool) -> int:
    """Return the index of the choice that a label names.

    Args:
        spec: The task's specification.
        choices: The choices' texts.
        raw: The label as the record holds it.
        declared: Whether the data set declares labels as indices of its class names.

    Raises:
        NoChoice: None, or one of two.
    """
    found: Any = raw
    if spec.label_map is not None:
        found = _mapped(spec.label_map, raw)
        if found is None:
            raise _outside(raw, choices)
        found = str(found) if isinstance(found, str) else found
    if declared and not isinstance(found, str | bool):
        return _need(_counted(choices, found), raw, choices)
    index = _index(choices, found, spec.label_is)
    return _need(index, raw, choices)


def _need(index: int | None, raw: Any, choices: Sequence[str]) -> int:
    if index is None:
        raise _outside(raw, choices)
    return index


def _outside(raw: Any, choices: Sequence[str], hint: str = "") -> NoChoice:
    shown = ", ".join(f"{number}: {choice}" for number, choice in enumerate(choices))
    hint = "; map true and false with a label_map" if isinstance(raw, bool) else hint
    return NoChoice(f"label {shown_label(raw)} is outside the choices ({shown}){hint}")


def shown_label(raw: Any) -> str:
    """Return a label for a message: texts in quotes, all others as written."""
    return repr(str(raw)) if isinstance(raw, str) else text_of(raw)


def _mapped(label_map: Mapping[str, str | int], raw: Any) -> str | int | None:
    """Return what a label is mapped to: by its text, or a number by its value."""
    if text_of(raw) in label_map:
        return label_map[text_of(raw)]
    if isinstance(raw, str | bool) or number_of(raw) is None:
        return None
    keys = [key for key in label_map if same_number(key, raw)]
    return label_map[keys[0]] if len(keys) == 1 else None


def _index(choices: Sequence[str], raw: Any, reading: Reading | None) -> int | None:
    if reading is not None:
        return (_counted if reading == "index" else _matched)(choices, raw)
    matched, counted = _matched(choices, raw), _counted(choices, raw)
    if counted is None or matched == counted:
        return matched
    if isinstance(raw, str):
        # A text "1" is not the second of "1 star" and "2 stars".
        return counted if matched is None and not any(map(_DIGIT.match, choices)) else matched
    if not any(map(writes_number, choices)):
        return counted if matched is None else matched
    if matched is None:
        raise _outside(raw, choices, "; say 'label_is: index' if it is the number of a choice")
    raise NoChoice(
        f"label {shown_label(raw)} could be the choice {choices[matched]!r}, or the number of the "
        f"choice {choices[counted]!r}; say 'label_is: text' or 'label_is: index' in a task file"
    )


def _matched(choices: Sequence[str], raw: Any) -> int | None:
    """Return the choice with a label's text, or with the number that the label is."""
    if isinstance(raw, str | bool) or number_of(raw) is None:
        text = text_of(raw)
        return choices.index(text) if text in choices else None
    if text_of(raw) in choices:
        return choices.index(text_of(raw))
    same = [index for index, choice in enumerate(choices) if same_number(choice, raw)]
    return same[0] if len(same) == 1 else None


def _counted(choices: Sequence[str], raw: Any) -> int | None:
    """Return the choice with a label's number, from 0."""
    if isinstance(raw, bool):
        return None
    if isinstance(raw, str):
        raw = int(raw) if _INDEX.fullmatch(raw) else None
    number = number_of(raw)
    if number is None or not number.is_integer() or not 0 <= number < len(choices):
        return None
    return int(number)
