"""Where a record becomes an example: prompt, answer, label and choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from peml.tasks.chat import (
    Conversation,
    are_conversations,
    conversation_of,
    parts_of,
    plain,
)
from peml.tasks.fields import MissingField
from peml.tasks.files import Records
from peml.tasks.labels import (
    LISTED,
    NoChoice,
    chosen,
    final_of,
    fixed_choices,
    infer_kind,
    label_at,
    lists_choices,
    record_choices,
    shown_label,
)
from peml.tasks.spec import TaskKind, TaskSpec
from peml.tasks.templates import check_template, fields_of, render
from peml.tasks.values import NoText, number_of, number_text, text_of
from prefixnas.base.errors import UserError

LARGEST = 1e18
"""The largest number of a regression: its square is one that 32 bits hold."""


@dataclass(frozen=True)
class Example:
    """One example of a task.

    Attributes:
        prompt: The whole text in front of the answer.
        answer: What the model is to say: a choice, a number as the data writes it, or a text.
        label: Index of the right choice, a number, or (generation) the answer again.
        id: Unique within the task: split of the source and position there.
        choices: What the answer is chosen from; empty unless the task is a choice task.
        turns: The conversation in front of the answer, where the record is one; `prompt` is the
            same as a text.
    """

    prompt: str
    answer: str
    label: int | float | str
    id: str
    choices: tuple[str, ...] = ()
    turns: Conversation = ()


@dataclass(frozen=True)
class Form:
    """How the records of a task become examples.

    Attributes:
        spec: The task's specification.
        kind: The task's kind.
        choices: The choices of all records; empty where each record has its own.
        declared: Whether the data set itself declares the choices, so that labels are indices.
        finals: Whether the answers to write are the texts in ``fields.final``.
        talks: Whether the records are conversations.
    """

    spec: TaskSpec
    kind: TaskKind
    choices: tuple[str, ...] = ()
    declared: bool = False
    finals: bool = False
    talks: bool = False

    @classmethod
    def of(cls, spec: TaskSpec, splits: Mapping[str, Records]) -> Form:
        """Find out how a task's records are to be read, from all of them.

        Raises:
            UserError: The specification and the records, or the records themselves, disagree.
        """
        if are_conversations(spec, splits["train"]):
            return cls(spec, "generation", talks=True)
        _check_templates(spec)
        choices = fixed_choices(spec, splits)
        kind = spec.kind or infer_kind(spec, splits, choices)
        if spec.kind == "choice" and not choices and not lists_choices(spec, splits):
            raise UserError(
                f"{spec.where('kind')}: a choice task needs choices: set 'choices' or 'label_map'"
            )
        declared = bool(choices) and spec.choices is None and spec.label_map is None
        finals = kind == "generation" and _have_finals(spec, splits)
        return cls(spec, kind, choices, declared, finals)

    @property
    def choices_field(self) -> str | None:
        """The field in which a record may list its choices; None where all have the same."""
        if self.kind != "choice" or self.choices:
            return None
        return self.spec.choices if isinstance(self.spec.choices, str) else LISTED

    def example(self, records: Records, index: int, split: str) -> Example:
        """Make the example of one record.

        Args:
            records: Records of a split.
            index: Which record.
            split: The split's name, for the example's id.

        Raises:
            UserError: A field is missing, or the label is none of the choices or no number.
        """
        if self.talks:
            return _conversation(records, index, f"{split}:{index}")
        # A space and the answer follow, so blanks at the end would be doubled.
        prompt = self._render("template", records, index).rstrip()
        blank = Example(prompt, "", "", f"{split}:{index}")
        if self.kind == "generation":
            answer = self._text(records, index)
            return replace(blank, answer=answer, label=answer)
        if self.kind == "regression":
            raw = label_at(self.spec, records, index)
            if (number := number_of(raw)) is None:
                where = records.where(index)
                raise UserError(f"{where}: label {shown_label(raw)} is not a number")
            if abs(number) > LARGEST:
                where = records.where(index)
                raise UserError(f"{where}: label {shown_label(raw)} is beyond ±{LARGEST:g}")
            return replace(blank, answer=number_text(raw), label=number)
        return self._choice(blank, records, index)

    def _choice(self, blank: Example, records: Records, index: int) -> Example:
        where = records.where(index)
        choices = self.choices or record_choices(self.spec, records, index)
        if not choices:
            raise UserError(f"{where}: the record of a choice task has no choices")
        try:
            place = chosen(self.spec, choices, label_at(self.spec, records, index), self.declared)
        except NoChoice as error:
            raise UserError(f"{where}: {error}") from None
        return replace(blank, answer=choices[place], label=place, choices=choices)

    def _text(self, records: Records, index: int) -> str:
        if self.spec.answer is not None:
            answer = self._render("answer", records, index)
        elif self.finals:
            answer = final_of(self.spec, records.rows[index]) or ""
        else:
            answer = text_of(label_at(self.spec, records, index))
        if not answer.strip():
            raise UserError(f"{records.where(index)}: the answer is empty")
        return answer.strip()

    def _render(self, key: str, records: Records, index: int) -> str:
        where = f"{records.where(index)}"
        try:
            return render(getattr(self.spec, key), records.rows[index])
        except (MissingField, NoText) as error:
            raise UserError(
                f"{where}: {error}, which the {key} of {self.spec.where()} uses"
            ) from None
        except (ValueError, TypeError) as error:
            raise UserError(f"{self.spec.where(key)}: {where}: {error}") from error


def _check_templates(spec: TaskSpec) -> None:
    for key in ("template", "answer"):
        try:
            check_template(getattr(spec, key) or "")
        except ValueError as error:
            raise UserError(f"{spec.where(key)}: malformed template: {error}") from error
    if spec.template is not None and not fields_of(spec.template):
        raise UserError(
            f"{spec.where('template')}: it has no field, so every prompt would be the same; "
            "write one as {input}"
        )


def _conversation(records: Records, index: int, name: str) -> Example:
    *asked, answer = conversation_of(records.rows[index], records.where(index))
    return _answered(tuple(asked), answer.content.strip(), name)


def _answered(turns: Conversation, answer: str, name: str) -> Example:
    return Example(plain(turns).rstrip(), answer, answer, name, turns=turns)


def with_parts(example: Example) -> list[Example]:
    """Return an example of a conversation behind one for each earlier answer in it."""
    parts = enumerate(parts_of(example.turns))
    earlier = [_answered(turns, said, f"{example.id}.{n}") for n, (turns, said) in parts]
    return [*earlier, example]


def _have_finals(spec: TaskSpec, splits: Mapping[str, Records]) -> bool:
    """Tell whether all records have ``fields.final``; refuse to use it in some of them."""
    if spec.answer is not None:
        return False
    seen: list[tuple[Records, int, bool]] = [
        (records, index, final_of(spec, row) is not None)
        for records in splits.values()
        for index, row in enumerate(records.rows)
    ]
    without = [(records, index) for records, index, there in seen if not there]
    if without and len(without) < len(seen):
        records, index = without[0]
        raise UserError(
            f"{records.where(index)}: no text in 'fields.final', which other records have; "
            "say in a task file what the 'answer' is"
        )
    return not without


def in_one_order(examples: Mapping[str, Sequence[Example]]) -> dict[str, list[Example]]:
    """Give all examples of a choice task one order of choices, where one list holds them all.

    Records may list the same choices in different orders; an index, which heads and some metrics
    go by, means something only in one.
    """
    found = [example for split in examples.values() for example in split]
    order = max((example.choices for example in found), key=len)
    if not all(set(example.choices) <= set(order) for example in found):
        return {split: list(some) for split, some in examples.items()}
    return {split: in_order(some, order) for split, some in examples.items()}


def in_order(examples: Sequence[Example], order: Sequence[str]) -> list[Example]:
    """Return examples with their choices in an order that holds them all."""
    rank = {choice: place for place, choice in enumerate(order)}
    return [_reordered(example, rank) for example in examples]


def _reordered(example: Example, rank: Mapping[str, int]) -> Example:
    choices = tuple(sorted(example.choices, key=rank.__getitem__))
    if choices == example.choices:
        return example
    return replace(example, choices=choices, label=choices.index(example.answer))
