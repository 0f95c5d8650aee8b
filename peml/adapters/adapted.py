"""A base model together with what was trained on it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from peml.adapters.manifest import Manifest
from peml.answers.heads import TaskHeads
from peml.answers.writing import Sampling, write_after
from peml.batches.collate import Collator
from peml.model.model import Family, LanguageModel
from peml.prefix.handle import PrefixHandle
from peml.tasks.chat import Conversation, Turn, plain, turns_of
from peml.tasks.spec import Chat, check_count
from prefixnas.base.errors import UserError, unknown
from prefixnas.base.options import make, resolve

Prompt = str | Sequence[Mapping[str, str]]
"""A text, or the turns of a conversation."""


@dataclass(frozen=True)
class Adapted:
    """A language model with LoRA merged and its prefix attached; made by `peml.load`.

    ``adapted.model(**inputs)`` and ``adapted.model.generate`` use the prefix.

    Attributes:
        lm: The base model with LoRA merged, and its tokenizer.
        heads: The task heads of an encoder-only model, else None.
        prefix: The attached prefix; None where the adapter has none.
        manifest: What the adapter says of itself: tasks, sites, sizes.
        folder: Where it was loaded from.
    """

    lm: LanguageModel
    heads: TaskHeads | None
    prefix: PrefixHandle | None
    manifest: Manifest
    folder: Path

    @property
    def model(self) -> PreTrainedModel:
        """The transformers model."""
        return self.lm.model

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its tokenizer."""
        return self.lm.tokenizer

    @property
    def family(self) -> Family:
        """Which way the model reads and answers."""
        return self.lm.family

    def generate(self, prompt: Prompt, **sampling: Any) -> str:
        """Write after a prompt, greedily by default; return what was written, without the prompt.

        The prompt is read as in training: blanks at its end are dropped, an empty one is a start
        token, and one that is too long for the model loses its beginning. Where all that was
        trained are conversations, it is what the user says in one.

        Args:
            prompt: The prompt, or the turns of a conversation: ``[{"role": "user", "content":
                "..."}]``.
            sampling: As for `Sampling`: ``max_new_tokens`` (32), ``do_sample`` ...

        Raises:
            UserError: The model is encoder-only, its window is too small, or a value of `sampling`
                is not allowed.
        """
        return self.generate_all([prompt], **sampling)[0]

    def generate_all(
        self,
        prompts: Sequence[Prompt],
        *,
        batch_size: int = 8,
        chat: Chat = "auto",
        warn: Callable[[str], object] = warnings.warn,
        progress: Callable[[int], object] = lambda count: None,
        **sampling: Any,
    ) -> list[str]:
        """Write after each of several prompts, `batch_size` at a time.

        Args:
            prompts: Texts, or turns of conversations.
            batch_size: Prompts at a time; what is drawn depends on it.
            chat: ``auto`` reads conversations as in training, and by the chat template where there
                were none; ``off`` reads all prompts as plain text.
            warn: Called with a line if prompts lost their beginning.
            progress: Called after each batch with how many prompts were in it.
            sampling: As for `generate`.

        Raises:
            UserError: As for `generate`.
        """
        self.check_generation()
        check_count("batch_size", batch_size)
        if isinstance(prompts, str):
            raise UserError("prompts: expected a list of them; 'generate' takes a single one")
        how = make(Sampling, resolve({"generation": Sampling}, [("generate", sampling)]))
        collator = Collator(self.lm)
        read = [self._read(prompt, chat) for prompt in prompts]
        return write_after(collator, read, how, batch_size=batch_size, warn=warn, progress=progress)

    def _read(self, prompt: Prompt, chat: Chat) -> str | Conversation:
        """Return a prompt as the text, or the turns, that the model is to read."""
        if isinstance(prompt, str):
            talks = chat == "auto" and self.manifest.talks
            return (Turn("user", prompt),) if talks else prompt
        turns = turns_of(prompt, "the prompt")
        return turns if chat == "auto" and not self.manifest.silent else plain(turns)

    def check_heads(self, tasks: Iterable[str]) -> None:
        """Raise a UserError if the model answers by heads, and has none for one of these tasks."""
        if self.heads is None:
            return
        for task in tasks:
            if task not in self.heads.outputs:
                raise unknown("task", task, self.heads.outputs, f"{self.folder}: heads")

    def check_generation(self) -> None:
        """Raise a UserError if the model is encoder-only, and so cannot write text."""
        if self.family == "encoder":
            raise UserError(
                f"{self.folder}: the encoder-only model {self.lm.name!r} cannot write text"
            )
