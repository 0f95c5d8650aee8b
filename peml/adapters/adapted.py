"""A base model together with what was trained on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from peml.adapters.manifest import Manifest
from peml.answers.heads import TaskHeads
from peml.batches.collate import Collator
from peml.model.model import Family, LanguageModel
from peml.prefix.handle import PrefixHandle
from prefixnas.base.errors import UserError
from prefixnas.network.modes import evaluation_mode


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

    def generate(self, prompt: str, *, max_new_tokens: int = 32) -> str:
        """Write greedily after a prompt; return what was written, without the prompt.

        The prompt is read as in training: blanks at its end are dropped, an empty one is a start
        token, and one that is too long for the model loses its beginning.

        Raises:
            UserError: The model is encoder-only, or its window is too small.
        """
        self.check_generation()
        collator = Collator(self.lm)
        text = collator.text
        most = max_new_tokens if self.family == "decoder" else 0
        room = 10**9 if collator.max_length is None else collator.max_length - most
        if room < 1:
            raise UserError(f"max_new_tokens: {most} leave no room in {collator.max_length} tokens")
        ids, _ = text.prompt(prompt.rstrip(), room)
        inputs = torch.tensor([ids], device=self.lm.device)
        model: Any = self.model
        with evaluation_mode(model):
            written = model.generate(
                input_ids=inputs,
                attention_mask=torch.ones_like(inputs),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=1,
                eos_token_id=list(text.end) or None,
                pad_token_id=text.pad,
            )
        start = inputs.shape[1] if self.family == "decoder" else 0
        return str(self.tokenizer.decode(written[0, start:], skip_special_tokens=True))

    def check_generation(self) -> None:
        """Raise a UserError if the model is encoder-only, and so cannot write text."""
        if self.family == "encoder":
            raise UserError(
                f"{self.folder}: the encoder-only model {self.lm.name!r} cannot write text"
            )
