"""A base language model with its tokenizer, and how it reads and answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    MODEL_MAPPING_NAMES,
)

from peml.model.quantize import Quantize
from prefixnas.base.errors import UserError

Family = Literal["decoder", "encoder-decoder", "encoder"]


class TaskAware(Protocol):
    """Something inside a model that may compute each task in its own way."""

    def on(self, task: str) -> AbstractContextManager[Any]:
        """Return a context in which passes are of this task."""


@dataclass
class LanguageModel:
    """A base model with its tokenizer; what was trained on it is no part of it.

    Attributes:
        model: The transformers model, frozen and in eval mode as loaded. Encoder-only models come
            without a head: their heads are `peml.answers.heads.TaskHeads`, one per task.
        tokenizer: Its tokenizer, always with a pad token.
        family: Which way the model reads and answers.
        name: What the user called it: hub id, folder, file or ``embedded:...``.
        revision: Which commit of a hub model it is; None for everything else.
        quantize: How its linear layers are quantised, ``"nf4"`` or ``"int8"``; None: not at all.
        attached: What wants to know the task of a pass; `dataclasses.replace` starts without any.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    family: Family
    name: str
    revision: str | None = None
    quantize: Quantize | None = None
    attached: list[TaskAware] = field(default_factory=list, init=False, repr=False)

    @contextmanager
    def on(self, task: str) -> Iterator[None]:
        """Enter a context in which the model's passes, backward ones too, are of one task.

        Raises:
            UserError: Something that is attached was not trained for it.
        """
        with ExitStack() as stack:
            for each in self.attached:
                stack.enter_context(each.on(task))
            yield

    @property
    def goes_on(self) -> bool:
        """Whether what is attached may read a text in parts, each with the cache of the former."""
        return all(getattr(each, "goes_on", True) for each in self.attached)

    @property
    def input_rows(self) -> int:
        """Positions of the model's window that what is attached takes, and no text can have."""
        return sum(getattr(each, "input_rows", 0) for each in self.attached)

    @property
    def device(self) -> torch.device:
        """Where the model's parameters live."""
        return self.model.device

    @property
    def place(self) -> str:
        """Where transformers finds it: a hub id, or a folder by its full path."""
        where = self.model.name_or_path or self.name
        return str(Path(where).resolve()) if Path(where).exists() else where

    @property
    def hidden_size(self) -> int:
        """Width of the model's hidden states, the default width of the prefix encoder."""
        return int(self.model.config.get_text_config().hidden_size)


def family_of(config: PreTrainedConfig, name: str) -> Family:
    """Decide from a model's configuration how it reads and answers.

    Raises:
        UserError: The architecture is none of the three families.
    """
    kind = config.model_type
    if config.is_encoder_decoder:
        if kind in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
            return "encoder-decoder"
    elif kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False):
        return "encoder"
    elif kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return "decoder"
    elif kind in MODEL_MAPPING_NAMES and _reads_text(config):
        return "encoder"
    raise UserError(
        f"{name}: architecture {kind!r} is not supported: "
        "it is neither a decoder-only, nor an encoder-decoder, nor an encoder-only language model"
    )


def _reads_text(config: PreTrainedConfig) -> bool:
    return hasattr(config, "vocab_size") and not hasattr(config, "vision_config")
