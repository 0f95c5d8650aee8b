"""A task: its examples, and what is asked of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from functools import cached_property

from peml.tasks.chat import Conversation, Turn
from peml.tasks.examples import Example, in_order
from peml.tasks.spec import Chat, TaskKind, TaskSpec
from prefixnas.base.errors import UserError

SHOT_END = "\n\n"
"""What parts a shot from the next prompt."""


@dataclass(frozen=True)
class Task:
    """A task with its examples.

    Attributes:
        name: Short name.
        kind: ``choice`` (likelihood of each choice), ``regression`` or ``generation``.
        choices: Answer texts of a choice task (where examples have their own, the longest list),
            else empty.
        metrics: Names of metrics; their mean is the task's score.
        gamma: Sampling weight of eq. 1; None: the run's.
        splits: ``train``, ``selection`` (set aside from train: for alpha steps on held-out
            batches, early stopping and choosing), ``validation`` (only ever reported) and, where
            there is one, ``test`` (reported once, at the end).
        max_new_tokens: Generation only; None: the longest training answer.
        template: The prompt, a format string over a record's fields.
        choices_field: The field in which a record may list choices of its own; None: no such.
        notes: What was decided for the user about splits and choices, a line each.
        shots: Examples that stand, with their answers, in front of every prompt that is scored;
            they are in none of the splits.
        num_beams: Generation only: beams of the search for the best answer; 1: greedy.
        chat: How its conversations are read, ``auto`` or ``off``; None: it has none.
        trained_scale: `label_scale` of the examples that a model was trained on, where these are
            others than the task's own.
    """

    name: str
    kind: TaskKind
    choices: tuple[str, ...]
    metrics: tuple[str, ...]
    gamma: float | None
    splits: Mapping[str, tuple[Example, ...]] = field(repr=False)
    max_new_tokens: int | None = None
    template: str = TaskSpec.template
    choices_field: str | None = None
    notes: tuple[str, ...] = ()
    shots: tuple[Example, ...] = field(default=(), repr=False)
    num_beams: int = 1
    chat: Chat | None = None
    trained_scale: tuple[float, float] | None = None

    def prompt(self, example: Example) -> str:
        """Return an example's prompt as it is scored: behind the shots."""
        shown = [f"{shot.prompt} {shot.answer}{SHOT_END}" for shot in self.shots]
        return "".join([*shown, example.prompt])

    def turns(self, example: Example) -> Conversation:
        """Return an example's conversation as it is scored: shots come behind the system's turn."""
        front = tuple(turn for turn in example.turns[:1] if turn.role == "system")
        shown = [
            turn
            for shot in self.shots
            for turn in (*shot.turns, Turn("assistant", shot.answer))
            if turn.role != "system"
        ]
        return (*front, *shown, *example.turns[len(front) :])

    @property
    def n_outputs(self) -> int:
        """Outputs that a classification or regression head needs; 0 for generation."""
        return {"choice": len(self.choices), "regression": 1, "generation": 0}[self.kind]

    @cached_property
    def shared_choices(self) -> tuple[str, ...]:
        """The choices, where they hold those of every example; empty where examples have others."""
        known = set(self.choices)
        found = (example for split in self.splits.values() for example in split)
        return self.choices if all(known.issuperset(e.choices) for e in found) else ()

    @cached_property
    def _classes(self) -> Mapping[str, int]:
        return {choice: place for place, choice in enumerate(self.shared_choices)}

    def target(self, example: Example, answer: int | float | str) -> int | float | str:
        """Return an answer to an example as heads learn it and metrics compare it.

        Args:
            example: One of the task's examples.
            answer: Its label, or a prediction: the index of one of its own choices, a number or a
                text.

        Returns:
            The choice's index in `shared_choices`, whatever part of them the example lists, and in
            whatever order; all else as it is.
        """
        if not self._classes or not example.choices:
            return answer
        return self._classes[example.choices[int(answer)]]

    def digest(self) -> str:
        """Return a hash of all that the shots and the examples of all splits say."""
        found = hashlib.sha256()
        for split, examples in [*sorted(self.splits.items()), ("shots", self.shots)]:
            for example in examples:
                said = astuple(example)
                # Hashes of earlier versions, which knew no conversations, stay as they were.
                found.update(repr((split, *(said if example.turns else said[:-1]))).encode())
        return found.hexdigest()

    def in_order_of(self, choices: Sequence[str]) -> Task:
        """Return the task with its choices in another order.

        Raises:
            UserError: The task's choices are other texts.
        """
        if set(self.shared_choices) != set(choices):
            raise UserError(
                f"task {self.name!r}: its choices {list(self.choices)} are not those that were "
                f"trained, {list(choices)}"
            )
        splits = {split: tuple(in_order(found, choices)) for split, found in self.splits.items()}
        return replace(self, choices=tuple(choices), splits=splits)

    def label_scale(self) -> tuple[float, float]:
        """Return mean and standard deviation of the training labels; (0, 1) if not numbers."""
        if self.kind != "regression":
            return 0.0, 1.0
        if self.trained_scale is not None:
            return self.trained_scale
        labels = [float(example.label) for example in self.splits["train"]]
        mean = sum(labels) / len(labels)
        deviation = (sum((label - mean) ** 2 for label in labels) / len(labels)) ** 0.5
        return mean, deviation or 1.0


def check_unchanged(digests: Mapping[str, str], saved: Mapping[str, str]) -> None:
    """Refuse to go on with other examples than before.

    Args:
        digests: `Task.digest` by name, now.
        saved: The same when the run began.

    Raises:
        UserError: Names the first task that changed.
    """
    for name, digest in digests.items():
        if saved.get(name) != digest:
            raise UserError(
                f"cannot go on: the examples of task {name!r} are not those that the run began "
                "with; put the data back, or begin a new run"
            )
