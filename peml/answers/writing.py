"""Free generation after prompts, in batches: greedy, sampled, or by beam search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from peml.batches.collate import Collator
from peml.batches.tokens import Ids
from peml.model.device import isolated_random
from peml.tasks.chat import Conversation, plain
from prefixnas.base.errors import UserError
from prefixnas.base.options import Options, option
from prefixnas.network.modes import evaluation_mode


@dataclass(frozen=True)
class Sampling(Options):
    """How text is written, by the names that transformers has for it.

    Attributes:
        max_new_tokens: Most tokens to write.
        do_sample: Draw each token; without it, the likeliest one is taken.
        temperature: What logits are divided by before a token is drawn.
        top_p: Draw among the likeliest tokens that have this probability together.
        top_k: Draw among so many of the likeliest tokens.
        num_beams: Beginnings that are gone on with at a time; 1: no beam search.
        seed: Of the draws.

    Raises:
        UserError: A value that is not allowed, or that does nothing without `do_sample`.
    """

    max_new_tokens: int = option(32, "most tokens to write", at_least=1, at_most=10**6)
    do_sample: bool = option(False, "draw tokens")
    temperature: float | None = option(None, "of the draws", above=0, at_most=1000)
    top_p: float | None = option(None, "draw among this probability", above=0, at_most=1)
    top_k: int | None = option(None, "draw among so many tokens", at_least=1, at_most=10**6)
    num_beams: int = option(1, "beams", at_least=1, at_most=1000)
    seed: int = option(0, "of the draws", at_least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("temperature", "top_p", "top_k"):
            if getattr(self, name) is not None and not self.do_sample:
                raise UserError(f"{name} does nothing where no token is drawn: set do_sample, too")

    def configuration(self, collator: Collator, ends: Ids = ()) -> Any:
        """Return this as transformers' configuration, for a model.

        Args:
            collator: Tokenises for the model.
            ends: Tokens that end a text, besides the tokenizer's own.
        """
        import transformers

        make_configuration: Any = transformers.GenerationConfig  # the class has no annotations
        text = collator.text
        drawn = {name: getattr(self, name) for name in ("temperature", "top_p", "top_k")}
        return make_configuration(
            max_new_tokens=self.max_new_tokens,
            do_sample=self.do_sample,
            num_beams=self.num_beams,
            pad_token_id=text.pad,
            eos_token_id=list({*ends, *text.end}) or None,
            bos_token_id=text.start,
            decoder_start_token_id=getattr(
                collator.lm.model.config, "decoder_start_token_id", None
            ),
            **{name: value for name, value in drawn.items() if value is not None},
        )


def write_after(
    collator: Collator,
    prompts: Sequence[str | Conversation],
    sampling: Sampling,
    *,
    batch_size: int = 8,
    warn: Callable[[str], object] = lambda message: None,
    progress: Callable[[int], object] = lambda count: None,
) -> list[str]:
    """Write after prompts; return what was written, without the prompts, in their order.

    Prompts are read as in training: blanks at the end are dropped, an empty one is a start token,
    and one that is too long for the model loses its beginning. Conversations are read by the
    model's chat template where it has one, else as text. The caller's random numbers stay.

    Args:
        collator: Tokenises for the language model ``collator.lm``, a decoder or encoder-decoder.
        prompts: Texts, or turns of conversations.
        sampling: How to write.
        batch_size: Prompts at a time; what is drawn depends on it.
        warn: Called with a line if prompts lost their beginning.
        progress: Called after each batch with how many prompts were in it.

    Raises:
        UserError: The model's window is too small.
    """
    most = sampling.max_new_tokens if collator.lm.family == "decoder" else 0
    room = 10**9 if collator.max_length is None else collator.max_length - most
    if room < 1:
        raise UserError(f"max_new_tokens: {most} leave no room in {collator.max_length} tokens")
    encoded = [_read(collator, prompt, room) for prompt in prompts]
    if cut := sum(was_cut for _, was_cut in encoded):
        warn(
            f"{cut} of {len(prompts)} prompts were longer than the model's window and lost their "
            "beginning"
        )
    talks = collator.chat is not None and any(not isinstance(each, str) for each in prompts)
    ends = collator.chat.ends if talks and collator.chat is not None else ()
    configuration = sampling.configuration(collator, ends)
    written: list[str] = []
    with evaluation_mode(collator.lm.model), isolated_random(collator.lm.device):
        torch.manual_seed(sampling.seed)
        for start in range(0, len(encoded), batch_size):
            rows = [ids for ids, _ in encoded[start : start + batch_size]]
            written += _write(collator, rows, configuration)
            progress(len(rows))
    return written


def _write(collator: Collator, rows: Sequence[Ids], configuration: Any) -> list[str]:
    """Return what the model writes after the prompts of a batch."""
    left = collator.lm.family == "decoder"
    model: Any = collator.lm.model
    inputs = collator.pad_left(rows) if left else collator.pad_right(rows)
    inputs.pop("position_ids", None)
    found = model.generate(
        **{name: tensor.to(model.device) for name, tensor in inputs.items()},
        generation_config=configuration,
    )
    skip = inputs["input_ids"].shape[1] if left else 0
    return [
        str(collator.lm.tokenizer.decode(row, skip_special_tokens=True))
        for row in found[:, skip:].tolist()
    ]


def _read(collator: Collator, prompt: str | Conversation, room: int) -> tuple[Ids, bool]:
    """Return the tokens of a prompt, and whether it was cut."""
    if isinstance(prompt, str):
        return collator.text.prompt(prompt.rstrip(), room)
    if collator.chat is None:
        return collator.text.prompt(plain(prompt).rstrip(), room)
    return collator.chat.prompt(prompt, room)
