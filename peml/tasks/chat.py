"""Conversations: the shapes in which records hold them, and what is asked and answered there.

| fields of a record | what it is |
|---|---|
| `messages` | turns, each with `role` and `content`; the last one of the assistant is the answer |
| `prompt`, `completion` | what the user says and the answer, as texts or as turns |
| `instruction`, `input`, `output` | what the user says, what it is about (or nothing), the answer |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from peml.tasks.fields import listed
from peml.tasks.files import Record, Records
from peml.tasks.spec import TaskSpec
from peml.tasks.values import NoText, text_of
from prefixnas.base.errors import UserError, brief, unknown

ROLES = ("system", "user", "assistant")
SHAPES = (
    "'input' and 'label'; 'messages'; 'prompt' and 'completion'; 'instruction', 'input', 'output'"
)
"""The fields that records may have where no task file names others."""

_NEEDED = ({"messages"}, {"prompt", "completion"}, {"instruction", "output"})
_PLAIN = ({"input", "label"}, {"input", "choices"}, {"input", "fields"})
_TURN = "turns, each an object with 'role' and 'content'"


class Turn(NamedTuple):
    """What one of those who talk says at a time."""

    role: str
    content: str


Conversation = tuple[Turn, ...]


def are_conversations(spec: TaskSpec, records: Records) -> bool:
    """Tell whether records are conversations, as the first of them shows.

    Never where the specification names fields, or another kind than generation.
    """
    named = (spec.answer, spec.choices, spec.label_map, spec.label_is)
    if any(key is not None for key in named) or spec.kind not in (None, "generation"):
        return False
    if spec.template != TaskSpec.template or spec.label != TaskSpec.label:
        return False
    fields = records.rows[0].keys()
    return any(shape <= fields for shape in _NEEDED) and not any(s <= fields for s in _PLAIN)


def check_shape(spec: TaskSpec, records: Records) -> None:
    """Refuse records that are of no known shape, if the specification does not name their fields.

    Raises:
        UserError: Names the shapes that are known.
    """
    fields = [str(key) for key, value in records.rows[0].items() if value is not None]
    unnamed = spec.template == TaskSpec.template and spec.label == TaskSpec.label
    known = are_conversations(spec, records) or any(shape <= {*fields} for shape in _PLAIN)
    if known or not unnamed or spec.answer is not None:
        return
    missing = "label" if "input" in fields else "input"
    if missing in records.rows[0]:
        raise UserError(f"{records.where(0)}: the field {missing!r} is null")
    raise UserError(
        f"{records.where(0)}: no field {missing!r} (there: {listed(fields)}); known "
        f"are the fields {SHAPES}: name others with 'template' and 'label' in a task file"
    )


def has_turns(record: Record) -> bool:
    """Tell whether a record lists the turns of a conversation, which could be no plain prompt."""
    return "messages" in record or isinstance(record.get("prompt"), list)


def conversation_of(record: Record, where: str) -> Conversation:
    """Return the turns of a record up to its answer, which is the last of them.

    Args:
        record: Of one of the shapes above.
        where: File and line, for messages.

    Raises:
        UserError: A field is missing, a role is unknown, or there is nothing to answer, or no
            answer.
    """
    turns = _turns(record, where)
    places = [place for place, turn in enumerate(turns) if turn.role == "assistant"]
    if not places:
        raise UserError(f"{where}: no turn is the assistant's, whose last one is the answer")
    turns = turns[: places[-1] + 1]
    if len(turns) < 2:
        raise UserError(f"{where}: nothing stands in front of the answer")
    if not turns[-1].content.strip():
        raise UserError(f"{where}: the answer is empty")
    return turns


def question_of(record: Record, where: str) -> Conversation:
    """Return the turns of a record that is to be answered: without an answer that it ends with.

    Raises:
        UserError: A field is missing, a role is unknown, or there is no turn.
    """
    turns = _turns(record, where)
    if turns and turns[-1].role == "assistant":
        turns = turns[:-1]
    if not turns:
        raise UserError(f"{where}: there is no turn to answer")
    return turns


def parts_of(turns: Conversation) -> list[tuple[Conversation, str]]:
    """Return for each earlier turn of the assistant the turns in front of it, and what it says."""
    return [
        (turns[:place], turn.content.strip())
        for place, turn in enumerate(turns)
        if place and turn.role == "assistant" and turn.content.strip()
    ]


def plain(turns: Sequence[Turn]) -> str:
    """Return turns as a text, for a model without a chat template.

    A single turn is its content. Of several each says whose it is, and the assistant's is next.
    """
    if len(turns) == 1:
        return turns[0].content
    said = [f"{turn.role.capitalize()}: {turn.content}" for turn in turns]
    return "\n\n".join([*said, "Assistant:"])


def turns_of(value: Any, where: str, field: str = "messages") -> Conversation:
    """Return a list of objects as turns.

    Args:
        value: The list.
        where: File and line, for messages.
        field: What holds it, for messages.

    Raises:
        UserError: It is no list of turns, or a role is unknown.
    """
    if not isinstance(value, list | tuple) or not value:
        raise UserError(f"{where}: {field!r} must be a list of {_TURN}, not {brief(value)}")
    return tuple(_turn(each, f"{where}, turn {n}") for n, each in enumerate(value, start=1))


def _turn(value: Any, where: str) -> Turn:
    if not isinstance(value, Mapping) or not {"role", "content"} <= value.keys():
        raise UserError(f"{where}: must be an object with 'role' and 'content', not {brief(value)}")
    role, content = value["role"], value["content"]
    if role not in ROLES:
        raise unknown("role", role, ROLES, where)
    if not isinstance(content, str):
        raise UserError(f"{where}: 'content' must be a text, not {brief(content)}")
    return Turn(str(role), str(content))


def _turns(record: Record, where: str) -> Conversation:
    if "messages" in record:
        return turns_of(record["messages"], where)
    if "prompt" in record:
        asked = _said(record, "prompt", "user", where)
        return asked + _said(record, "completion", "assistant", where, needed=False)
    if "instruction" in record:
        about = _text(record, "input", where, needed=False)
        asked_for = _text(record, "instruction", where)
        said = "\n\n".join(text for text in (asked_for, about) if text.strip())
        output = _text(record, "output", where, needed=False)
        return (Turn("user", said), *([Turn("assistant", output)] if output else []))
    there = listed(map(str, record))
    raise UserError(f"{where}: is no conversation (there: {there}; known are the fields {SHAPES})")


def _said(
    record: Record, field: str, role: str, where: str, *, needed: bool = True
) -> Conversation:
    """Return a field as turns: those that it lists, or one of its text."""
    if isinstance(record.get(field), list):
        return turns_of(record[field], where, field)
    text = _text(record, field, where, needed=needed)
    return (Turn(role, text),) if text or needed else ()


def _text(record: Record, field: str, where: str, *, needed: bool = True) -> str:
    value = record.get(field)
    if value is None:
        if needed:
            there = listed(map(str, record))
            raise UserError(f"{where}: no field {field!r} (there: {there})")
        return ""
    try:
        return text_of(value)
    except NoText as error:
        raise UserError(f"{where}: field {field!r} {error}") from None
