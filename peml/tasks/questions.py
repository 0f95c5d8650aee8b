"""Records that are to be answered: a trained task's prompts of records without an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from peml.tasks.chat import plain, question_of
from peml.tasks.examples import Example
from peml.tasks.fields import MissingField, lookup
from peml.tasks.files import Records
from peml.tasks.labels import LISTED, record_choices
from peml.tasks.spec import TaskSpec
from peml.tasks.task import Task
from peml.tasks.templates import render
from peml.tasks.values import NoText
from prefixnas.base.errors import UserError


def questions(task: Task, records: Records) -> list[Example]:
    """Return an example without an answer for each record.

    A conversation is gone on with; an answer that it ends with already is left out.

    Args:
        task: Gives the template, and the choices of records that list none of their own.
        records: New records; columns that the template does not use do no harm.

    Raises:
        UserError: A record lacks a field of the template, or has no choices, or is no conversation
            where the task is of such.
    """
    if task.chat is not None:
        return [_waiting(records, index) for index in range(len(records.rows))]
    prompts = prompts_of(task.template, records, f"the template of the task {task.name!r}")
    return [_question(task, records, index, prompt) for index, prompt in enumerate(prompts)]


def prompts_of(template: str, records: Records, what: str) -> list[str]:
    """Return a prompt for each record.

    Args:
        template: A format string over the record's fields.
        records: The records.
        what: What the template is, for messages.

    Raises:
        UserError: A record lacks a field of the template.
    """
    return [_prompt(template, records, index, what) for index in range(len(records.rows))]


def _prompt(template: str, records: Records, index: int, what: str) -> str:
    try:
        return render(template, records.rows[index]).rstrip()
    except (MissingField, NoText) as error:
        raise UserError(f"{records.where(index)}: {error}, which {what} uses") from None
    except (ValueError, TypeError) as error:
        raise UserError(f"{records.where(index)}: {error} ({what})") from error


def asked(records: Records) -> list[Sequence[Mapping[str, str]]]:
    """Return the turns to go on from of each record, as objects with ``role`` and ``content``.

    Raises:
        UserError: A record is no conversation.
    """
    pairs = ((row, records.where(index)) for index, row in enumerate(records.rows))
    return [[turn._asdict() for turn in question_of(*pair)] for pair in pairs]


def _waiting(records: Records, index: int) -> Example:
    turns = question_of(records.rows[index], records.where(index))
    return Example(plain(turns).rstrip(), "", "", f"new:{index}", turns=turns)


def _question(task: Task, records: Records, index: int, prompt: str) -> Example:
    choices = _choices(task, records, index) if task.kind == "choice" else ()
    return Example(prompt, "", 0 if task.kind == "choice" else "", f"new:{index}", choices)


def _choices(task: Task, records: Records, index: int) -> tuple[str, ...]:
    """Return the choices of a record: its own, in the order of the task's, or the task's."""
    path, shared = task.choices_field, task.shared_choices
    if path is None:
        return shared
    try:
        lookup(records.rows[index], path)
    except MissingField as error:
        if not shared:
            raise UserError(f"{records.where(index)}: the choices: {error}") from None
        return shared
    own = record_choices(TaskSpec(choices=None if path == LISTED else path), records, index)
    if not own and not shared:
        raise UserError(f"{records.where(index)}: {path!r} must be at least two different texts")
    known = [choice for choice in shared if choice in own]
    return tuple(known) if len(known) == len(own) else own
