"""A base model together with what was trained on it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
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
from prefixnas.base.errors import UserError
from prefixnas.base.options import make, resolve


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

    def generate(self, prompt: str, **sampling: Any) -> str:
        """Write after a prompt, greedily by default; return what was written, without the prompt.

        The prompt is read as in training: blanks at its end are dropped, an empty one is a start
        token, and one that is too long for the model loses its beginning.

        Args:
            prompt: The prompt.
            sampling: As for `Sampling`: ``max_new_tokens`` (32), ``do_sample`` ...

        Raises:
            UserError: The model is encoder-only, its window is too small, or a value of `sampling`
                is not allowed.
        """
        return self.generate_all([prompt], **sampling)[0]

    def generate_all(
        self,
        prompts: Sequence[str],
        *,
        batch_size: int = 8,
        warn: Callable[[str], object] = warnings.warn,
        progress: Callable[[int], object] = lambda count: None,
        **sampling: Any,
    ) -> list[str]:
        """Write after each of several prompts, `batch_size` at a time.

        Args:
            prompts: The prompts.
            batch_size: Prompts at a time; what is drawn depends on it.
            warn: Called with a line if prompts lost their beginning.
            progress: Called after each batch with how many prompts were in it.
            sampling: As for `generate`.

        Raises:
            UserError: As for `generate`.
        """
        self.check_generation()
        how = make(Sampling, resolve({"generation": Sampling}, [("generate", sampling)]))
        collator = Collator(self.lm)
        return write_after(
            collator, prompts, how, batch_size=batch_size, warn=warn, progress=progress
        )

    def check_generation(self) -> None:
        """Raise a UserError if the model is encoder-only, and so cannot write text."""
        if self.family == "encoder":
            raise UserError(
                f"{self.folder}: the encoder-only model {self.lm.name!r} cannot write text"
            )
