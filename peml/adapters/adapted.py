"""A base model together with what was trained on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from peml.adapters.manifest import Manifest
from peml.answers.heads import TaskHeads
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

        Raises:
            UserError: The model is encoder-only.
        """
        self.check_generation()
        inputs = self.tokenizer(prompt, return_tensors="pt").to(self.lm.device)
        inputs.pop("token_type_ids", None)
        model: Any = self.model
        with evaluation_mode(model):
            written = model.generate(
                **inputs,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=self.tokenizer.pad_token_id,
            )
        start = inputs["input_ids"].shape[1] if self.family == "decoder" else 0
        return str(self.tokenizer.decode(written[0, start:], skip_special_tokens=True))

    def check_generation(self) -> None:
        """Raise a UserError if the model is encoder-only, and so cannot write text."""
        if self.family == "encoder":
            raise UserError(
                f"{self.folder}: the encoder-only model {self.lm.name!r} cannot write text"
            )
