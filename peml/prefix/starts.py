"""Starting points of a prefix encoder, by name: ``random``, ``zero`` and ``text``.

In public prefix-tuning benchmarks the start moves the result more than the encoder does.

With ``zero`` and ``text`` the output layer starts at zero. Then the first backward pass gives a
gradient to the output layer alone: the body, and with it the architecture parameters, get theirs
from the second step on. Where head gates start at zero, they come first, and all else a step later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from peml.model.device import isolated_random
from peml.model.model import LanguageModel
from peml.prefix.attention import PrefixAttention
from peml.prefix.encoder import PrefixEncoder
from peml.prefix.positions import rotary_modules
from peml.prefix.sites import Site, block_shape
from peml.prefix.watch import watch
from prefixnas.base.errors import UserError, unknown

DEFAULT_TEXT = (
    "Read the text with care, think about the question that it poses, "
    "and then give the one short answer that fits it best.\n"
)
"""What a ``text`` start reads where the user gives no text."""


def _random(encoder: PrefixEncoder, lm: LanguageModel, text: str | None, chat: bool) -> None:
    """Draw the output layer as `nn.Linear` does: keys and values of standard deviation ~0.6."""
    encoder.output.reset_parameters()
    encoder.start.zero_()


def _zero(encoder: PrefixEncoder, lm: LanguageModel, text: str | None, chat: bool) -> None:
    """Keys and values of zero. Not a no-op: zero keys still take their share of attention."""
    nn.init.zeros_(encoder.output.weight)
    nn.init.zeros_(encoder.output.bias)
    encoder.start.zero_()


def _text(encoder: PrefixEncoder, lm: LanguageModel, text: str | None, chat: bool) -> None:
    """Keys and values of a real text; the encoder learns a correction to them."""
    _zero(encoder, lm, text, chat)
    moved = encoder.attention.moves_text(lm.model)
    read = default_tokens(lm, encoder.length, chat=chat) if text is None else text
    encoder.start.copy_(text_blocks(lm, encoder.sites, encoder.length, read, moved=moved))


STARTS: Mapping[str, Callable[[PrefixEncoder, LanguageModel, str | None, bool], None]] = {
    "random": _random,
    "zero": _zero,
    "text": _text,
}


def initialise(
    encoder: PrefixEncoder,
    lm: LanguageModel,
    start: str,
    *,
    seed: int,
    text: str | None = None,
    chat: bool = False,
) -> None:
    """Put a prefix encoder at a starting point; the body's own weights are left as they are.

    Whatever the start, the embedding is drawn anew as standard normal numbers and head gates are
    zero.

    Args:
        encoder: The encoder, changed in place.
        lm: The model it is for, without a prefix set.
        start: ``"random"``, ``"zero"`` or ``"text"``.
        seed: Seed of the random numbers; the caller's random stream does not move.
        text: What a ``"text"`` start reads; None means `DEFAULT_TEXT`.
        chat: Whether that is a system turn of the model's chat template, as conversations are read.

    Raises:
        UserError: Unknown start, one that the encoder's kind of attention can't begin from, or a
            text without tokens.
    """
    check_start(start, encoder.attention)
    with isolated_random(encoder.embedding.device), torch.no_grad():
        torch.manual_seed(seed)
        nn.init.normal_(encoder.embedding)
        if encoder.head_gates is not None:
            nn.init.zeros_(encoder.head_gates.weight)
        STARTS[start](encoder, lm, text, chat)


def check_start(start: str, attention: PrefixAttention) -> None:
    """Refuse a starting point that is unknown or that leads nowhere.

    Raises:
        UserError: Says why.
    """
    if start not in STARTS:
        raise unknown("start of the prefix", start, STARTS)
    if start not in attention.starts:
        raise UserError(
            f"a prefix with {attention.name!r} attention can't start with {start!r}: its head "
            f"gates would stay shut (allowed: {', '.join(attention.starts)})"
        )


def text_tokens(lm: LanguageModel, text: str) -> list[int]:
    """Return the tokens of a text that a prefix is to start from.

    Raises:
        UserError: It has none.
    """
    tokens = list(lm.tokenizer(text, add_special_tokens=False)["input_ids"])
    if not tokens:
        raise UserError(f"the text of the prefix, {text!r}, has no tokens")
    return tokens


def default_tokens(lm: LanguageModel, length: int, *, chat: bool) -> list[int]:
    """Return the tokens of `DEFAULT_TEXT`.

    Args:
        lm: The model.
        length: How many are wanted in the end.
        chat: Make a system turn of it, and the text in it so long that the whole turn has `length`
            tokens; where the chat template takes no system turn, or there is no room, the plain
            text remains.
    """
    tokens = text_tokens(lm, DEFAULT_TEXT)
    around = _system_turn(lm) if chat else None
    if around is None or len(around[0]) + len(around[1]) >= length:
        return tokens
    front, back = around
    return [*front, *_filled(tokens, length - len(front) - len(back)), *back]


def _system_turn(lm: LanguageModel) -> tuple[list[int], list[int]] | None:
    """Return the tokens around the text of a system turn; None: the chat template takes none."""
    said = DEFAULT_TEXT.strip()
    try:
        written = lm.tokenizer.apply_chat_template(
            [{"role": "system", "content": said}], tokenize=False
        )
    except Exception:  # whatever a template raises of its own
        return None
    front, found, back = str(written).partition(said)
    if not found:
        return None
    sides = (lm.tokenizer(side, add_special_tokens=False)["input_ids"] for side in (front, back))
    return list(next(sides)), list(next(sides))


def _filled(tokens: Sequence[int], length: int) -> list[int]:
    """Return tokens again and again, or without their beginning, `length` in all."""
    return list((list(tokens) * (length // len(tokens) + 1))[-length:])


def text_blocks(
    lm: LanguageModel,
    sites: Sequence[Site],
    length: int,
    text: str | Sequence[int],
    *,
    moved: bool = False,
) -> Tensor:
    """Take the keys and values that a text has in the model.

    The text is repeated, or cut at its beginning, to `length` tokens, and read at the first
    positions. Rotary models in which real tokens keep theirs read it at -l .. -1 instead, in front
    of them. In an encoder-decoder model the encoder and the decoder both read the text.

    Args:
        lm: The model.
        sites: The sites.
        length: Number of tokens l.
        text: The text, or its tokens.
        moved: Whether real tokens stand behind the prefix instead (`peml.prefix.positions`).

    Returns:
        ``[sites, 2, kv_heads, length, head_dim]``, float32.

    Raises:
        UserError: The text has no tokens.
    """
    tokens = text_tokens(lm, text) if isinstance(text, str) else text
    ids = torch.tensor([_filled(tokens, length)], device=lm.device)
    inputs: dict[str, Any] = {"input_ids": ids}
    if lm.family == "encoder-decoder":
        inputs["decoder_input_ids"] = ids
    if rotary_modules(lm.model) and not moved:
        inputs["position_ids"] = torch.arange(-length, 0, device=lm.device)[None]
    paths = {module: path for path, module in lm.model.named_modules()}
    read: dict[str, Tensor] = {}
    for call in watch(lm.model, inputs):
        # A module that runs several times (ALBERT) gets what it read first.
        read.setdefault(paths[call.module], torch.stack([call.key[0], call.value[0]]))
    kv_heads, head_dim = block_shape(sites)
    flat = [read[site.path].float().transpose(1, 2) for site in sites]
    blocks = [block.reshape(2, length, kv_heads, head_dim).transpose(1, 2) for block in flat]
    return torch.stack(blocks)
