"""From a task's examples to a model's inputs.

Decoders: rows are ``prompt + answer`` without the last answer token (nothing is predicted from it),
padded on the left, so that the answer positions of all rows are the last ones and the head runs on
those alone. Encoder-decoders: the prompt padded on the right, the answer as decoder labels.
Encoders: the prompt padded on the right, the label itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from peml.batches.batch import IGNORED, Batch, stacked
from peml.batches.chat import ChatFormat, has_chat
from peml.batches.tokens import Ids, TextTokenizer
from peml.batches.truncation import TruncationCounter
from peml.tasks.chat import Turn
from peml.tasks.examples import Example
from prefixnas.base.errors import UserError

if TYPE_CHECKING:
    from peml.model.model import LanguageModel
    from peml.tasks.task import Task

_NO_LIMIT = 10**9
END_WEIGHT = 0.125
"""Weight of the end token behind a choice, against 1 for each token of the choice itself."""


@dataclass(frozen=True)
class Encoded:
    """Token ids of one example; ``answer`` is empty for encoder-only models."""

    prompt: Ids
    answer: Ids


class Collator:
    """Makes model inputs of a task's examples; every example is tokenised once.

    Conversations are read by the tokenizer's chat template (see `ChatFormat`), in training,
    scoring and writing alike. Other answers are tokenised apart from prompts (see `TextTokenizer`).
    An end token closes every answer, so that a model learns where to stop. Choices are scored
    without it, and in their loss it weighs `END_WEIGHT`, or it would take half of the loss of a
    one-word answer. The exception: where one choice is the beginning of another, the end token is
    part of all of them.

    Args:
        lm: The language model.
        max_length: Longest row in tokens, prompt and answer; default: the model's window.
        longest: Most tokens of an answer by task; default: of those of its training split.
        input_rows: Positions of the window that are not for text; default: what is attached to
            `lm` takes.

    Attributes:
        truncation: Counts prompts that were cut on the left to make room.
    """

    def __init__(
        self,
        lm: LanguageModel,
        *,
        max_length: int | None = None,
        longest: Mapping[str, int] | None = None,
        input_rows: int | None = None,
    ) -> None:
        self.lm = lm
        self.text = TextTokenizer(lm.tokenizer, closed=lm.family != "decoder")
        self.truncation = TruncationCounter()
        window = _window(lm, self.text)
        if window is not None:
            window -= lm.input_rows if input_rows is None else input_rows
        self.max_length = min((n for n in (window, max_length) if n is not None), default=None)
        self._examples: dict[tuple[str, str], Encoded] = {}
        self._scored: dict[tuple[str, str], Ids] = {}
        self._choices: dict[tuple[str, ...], tuple[Ids, ...]] = {}
        self._longest: dict[str, int] = dict(longest or {})

    def check(self, tasks: Iterable[Task], *, sums: bool = True) -> None:
        """Check that the model can do these tasks.

        Args:
            tasks: The tasks.
            sums: Whether choices are scored by the sums of their tokens' log-probabilities.

        Raises:
            UserError: Free generation with an encoder-only model, choices that the model can't
                tell apart, answers whose end it can't learn for want of an end token, or shots
                that the model does not read or that leave no room.
        """
        for task in tasks:
            self._check_shots(task)
            if self.lm.family == "encoder":
                if task.kind == "generation":
                    raise UserError(
                        f"task {task.name!r} is free generation, which the encoder-only model "
                        f"{self.lm.name!r} cannot do; if its labels are classes, say 'kind: "
                        "choice' in a task file"
                    )
            elif task.kind == "choice":
                self._check_choices(task, sums)
            elif not self.ends(task):
                raise UserError(
                    f"task {task.name!r}: the tokenizer of {self.lm.name!r} has no end token, so "
                    "the model can't learn where an answer ends; choice tasks need none"
                )

    def _check_choices(self, task: Task, sums: bool) -> None:
        lists = {e.choices: e for found in task.splits.values() for e in found}
        for choices, example in lists.items():
            pairs = nested(self.choices(example))
            if sums and pairs and not self.text.end:
                shorter, longer = (choices[place] for place in pairs[0])
                raise UserError(
                    f"task {task.name!r}: the choice {shorter!r} is the beginning of {longer!r}, "
                    f"and the tokenizer of {self.lm.name!r} has no end token to tell them apart; "
                    "name the choices otherwise"
                )

    def _check_shots(self, task: Task) -> None:
        if not task.shots:
            return
        count = len(task.shots)
        if self.lm.family == "encoder":
            raise UserError(
                f"task {task.name!r}: the heads of the encoder-only model {self.lm.name!r} answer "
                f"without shots; leave the {count} out"
            )
        room = self._room(task)
        blank = Example("", "", "", "", turns=(Turn("user", ""),) if task.chat else ())
        size = len(self._read(task, blank, _NO_LIMIT, scored=True)[0])
        if room is not None and size >= room:
            raise UserError(
                f"task {task.name!r}: its {count} shots take {size} tokens, and {room} are there "
                "for shots and prompt; raise max_length, or take fewer"
            )

    @cached_property
    def chat(self) -> ChatFormat | None:
        """The model's chat template; None where it reads all as text."""
        return ChatFormat(self.lm, self.text.front) if has_chat(self.lm) else None

    def chat_of(self, task: Task) -> ChatFormat | None:
        """Return the template by which a task's conversations are read; None: as text."""
        return self.chat if task.chat == "auto" else None

    def ends(self, task: Task) -> Ids:
        """Return the tokens of which each ends an answer of a task."""
        chat = self.chat_of(task)
        return self.text.end if chat is None else tuple({*chat.ends, *self.text.end})

    def encode(self, task: Task, example: Example) -> Encoded:
        """Return the token ids of an example without shots, as it is trained on.

        They come from a cache after the first time.
        """
        key = (task.name, example.id)
        if key not in self._examples:
            answer = self.answer(task, example)
            prompt, cut = self._prompt(task, example, answer)
            self.truncation.add(task.name, cut, self.text.unknown(answer))
            self._examples[key] = Encoded(prompt, answer)
        return self._examples[key]

    def prompt(self, task: Task, example: Example) -> Ids:
        """Return the token ids of an example's prompt as it is scored: behind the task's shots."""
        if not task.shots:
            return self.encode(task, example).prompt
        key = (task.name, example.id)
        if key not in self._scored:
            answer = self.answer(task, example)
            ids, cut = self._prompt(task, example, answer, scored=True)
            name = f"{task.name} with {len(task.shots)} shots"
            self.truncation.add(name, cut, self.text.unknown(answer))
            self._scored[key] = ids
        return self._scored[key]

    def answer(self, task: Task, example: Example) -> Ids:
        """Return the ids of an example's right answer, with the end token where there is one.

        Nothing for encoder-only models, and where the right answer is not known.
        """
        if self.lm.family == "encoder" or not example.answer:
            return ()
        if task.kind == "choice":
            choice = self.choices(example)[int(example.label)]
            return choice if self._closed(choice) else choice + self.text.end
        if (chat := self.chat_of(task)) is not None:
            return chat.answer(example.turns, example.answer)
        ids = self.text.answer(example.answer)
        if task.kind == "regression" and self.text.unknown(ids):
            raise UserError(
                f"task {task.name!r}: the model {self.lm.name!r} has no token for a part of the "
                f"number {example.answer!r}"
            )
        return ids + self.text.end

    def choices(self, example: Example) -> tuple[Ids, ...]:
        """Return the ids of each choice of an example."""
        if example.choices not in self._choices:
            ids = tuple(self.text.answer(choice) for choice in example.choices)
            self._check_tokens(example.choices, ids)
            end = self.text.end if nested(ids) else ()
            self._choices[example.choices] = tuple(choice + end for choice in ids)
        return self._choices[example.choices]

    def _check_tokens(self, choices: Sequence[str], ids: Sequence[Ids]) -> None:
        for place, (choice, tokens) in enumerate(zip(choices, ids, strict=True)):
            if (first := ids.index(tokens)) < place:
                raise UserError(
                    f"the model {self.lm.name!r} can't tell the choices {choices[first]!r} and "
                    f"{choice!r} apart: they are the same tokens to it"
                )
            if self.text.unknown(tokens):
                raise UserError(
                    f"the model {self.lm.name!r} has no token for a part of the choice {choice!r}"
                )

    def _closed(self, choice: Ids) -> bool:
        """Tell whether the end token is part of a choice."""
        return bool(self.text.end) and choice[-1:] == self.text.end

    def _weights(self, task: Task, example: Example) -> tuple[float, ...]:
        """Return what each token of the example's answer weighs in its loss."""
        answer = self.encode(task, example).answer
        if task.kind != "choice" or not self.text.end:
            return (1.0,) * len(answer)
        last = 1.0 if self._closed(self.choices(example)[int(example.label)]) else END_WEIGHT
        return (*(1.0,) * (len(answer) - 1), last)

    def longest_answer(self, task: Task) -> int:
        """Return the most tokens that an answer of the task's training split takes."""
        if task.name not in self._longest:
            sizes = [len(self.answer(task, example)) for example in task.splits["train"]]
            if task.kind == "choice" and self.lm.family != "encoder":
                lists = {e.choices: e for found in task.splits.values() for e in found}
                sizes += [len(c) for example in lists.values() for c in self.choices(example)]
            self._longest[task.name] = max(sizes, default=0)
        return max(self._longest[task.name], task.max_new_tokens or 0)

    def lengths(self, task: Task, split: str = "train") -> list[int]:
        """Return each example's length in tokens, prompt and answer, for bucketing."""
        encoded = [self.encode(task, example) for example in task.splits[split]]
        return [len(ids.prompt) + len(ids.answer) for ids in encoded]

    def batch(self, task: Task, examples: Sequence[Example]) -> Batch:
        """Return model inputs and labels of examples, for the loss."""
        rows = [self.encode(task, example) for example in examples]
        if self.lm.family == "encoder":
            dtype = torch.float32 if task.kind == "regression" else torch.int64
            labels = torch.tensor([task.target(e, e.label) for e in examples], dtype=dtype)
            return Batch(task.name, task.kind, self.pad_right([row.prompt for row in rows]), labels)
        answers = [row.answer for row in rows]
        left = self.lm.family == "decoder"
        if left:
            inputs = self.pad_left([row.prompt + row.answer[:-1] for row in rows])
        else:
            inputs = self.pad_right([row.prompt for row in rows])
            inputs["decoder_input_ids"] = self.decoder_inputs(answers)
        labels = stacked(answers, IGNORED, left=left)
        weights = stacked([self._weights(task, example) for example in examples], 0.0, left=left)
        return Batch(task.name, task.kind, inputs, labels, weights)

    def prompts(self, task: Task, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Return model inputs of the prompts alone, for scoring and generation."""
        rows = [self.prompt(task, example) for example in examples]
        return self.pad_left(rows) if self.lm.family == "decoder" else self.pad_right(rows)

    def pad_left(self, rows: Sequence[Ids]) -> dict[str, Tensor]:
        """Return ids, mask and positions `[b, t]`; real tokens count from position 0."""
        mask = stacked([(1,) * len(row) for row in rows], 0, left=True)
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        ids = stacked(rows, self.text.pad, left=True)
        return {"input_ids": ids, "attention_mask": mask, "position_ids": positions}

    def pad_right(self, rows: Sequence[Ids]) -> dict[str, Tensor]:
        """Return ids and mask `[b, t]`."""
        mask = stacked([(1,) * len(row) for row in rows], 0, left=False)
        return {"input_ids": stacked(rows, self.text.pad, left=False), "attention_mask": mask}

    def decoder_inputs(self, answers: Sequence[Ids]) -> Tensor:
        """Return what an encoder-decoder's decoder reads: start token, answer less its last."""
        start = self.lm.model.config.decoder_start_token_id
        return stacked([(start, *ids[:-1]) for ids in answers], self.text.pad, left=False)

    def _read(self, task: Task, example: Example, room: int, *, scored: bool) -> tuple[Ids, bool]:
        if (chat := self.chat_of(task)) is not None:
            return chat.prompt(task.turns(example) if scored else example.turns, room)
        return self.text.prompt(task.prompt(example) if scored else example.prompt, room)

    def _prompt(
        self, task: Task, example: Example, answer: Ids, *, scored: bool = False
    ) -> tuple[Ids, bool]:
        room = self._room(task, len(answer))
        try:
            return self._read(task, example, _NO_LIMIT if room is None else room, scored=scored)
        except ValueError:
            raise UserError(
                f"task {task.name!r}: {self.max_length} tokens leave no room for a prompt beside "
                f"answers of up to {self._reserve(task, len(answer))} tokens; raise max_length"
            ) from None

    def _room(self, task: Task, answer: int = 0) -> int | None:
        """Return the most tokens that a prompt may have, beside an answer of so many."""
        return None if self.max_length is None else self.max_length - self._reserve(task, answer)

    def _reserve(self, task: Task, answer: int) -> int:
        # The room for the answer is the task's, not the example's: the prompt's ids are then the
        # same in training, scoring and generation.
        return max(self.longest_answer(task), answer) if self.lm.family == "decoder" else 0


def nested(choices: Sequence[Ids]) -> list[tuple[int, int]]:
    """Return the places of choices of which the first is the beginning of the second."""
    return [
        (short, long)
        for short, one in enumerate(choices)
        for long, other in enumerate(choices)
        if one != other and other[: len(one)] == one
    ]


def _window(lm: LanguageModel, text: TextTokenizer) -> int | None:
    positions = getattr(lm.model.config.get_text_config(), "max_position_embeddings", None)
    tables = [
        # Positions count from the one behind the padding's (RoBERTa and its kin).
        module.num_embeddings - module.padding_idx - 1
        for name, module in lm.model.named_modules()
        if name.endswith("position_embeddings")
        and isinstance(module, nn.Embedding)
        and module.padding_idx is not None
    ]
    sizes = [size for size in (positions, text.window, *tables) if isinstance(size, int)]
    return min((size for size in sizes if size > 0), default=None)
