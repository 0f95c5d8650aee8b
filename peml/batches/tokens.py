"""Token ids of prompts and answers, each tokenised on its own and in one way only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prefixnas.base.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = tuple[int, ...]

# A text that every tokenizer knows and that never merges with the space after it.
_ANCHOR = ":"
_NO_WINDOW = 10**9


class TextTokenizer:
    """Tokenises prompts and answers apart, so that a prompt's ids never depend on its answer.

    An answer's ids are those it has after a colon and a space (``": positive"`` less ``":"``).
    This holds for byte-level BPE, where the space belongs to the word, as for SentencePiece, which
    marks the start of a text. Special tokens that the tokenizer puts around a text are put around
    prompts: all of them for encoders, those in front alone for decoders.

    Args:
        tokenizer: The language model's tokenizer.
        closed: Put special tokens behind prompts as well (models with an encoder).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, closed: bool) -> None:
        self._tokenizer = tokenizer
        plain, full = self._ids(_ANCHOR), self._ids(_ANCHOR, special=True)
        start = next((i for i in range(len(full)) if full[i : i + len(plain)] == plain), len(full))
        self.front: Ids = full[:start]
        self.back: Ids = full[start + len(plain) :] if closed else ()
        self._anchor = plain

    def prompt(self, text: str, limit: int) -> tuple[Ids, bool]:
        """Return the ids of a prompt and whether it was cut to ``limit`` tokens.

        A long prompt loses its beginning: its end holds the question. An empty prompt becomes one
        start (or end) token, because a model needs something to read.
        """
        ids = self._ids(text)
        room = limit - len(self.front) - len(self.back)
        if room < 1:
            raise ValueError(f"no room for a prompt in {limit} tokens")
        cut = len(ids) > room
        whole = self.front + (ids[-room:] if cut else ids) + self.back
        return whole or (self.start,), cut

    def answer(self, text: str) -> Ids:
        """Return the ids of an answer, without an end token.

        Raises:
            UserError: The tokenizer leaves nothing of it.
        """
        joint = self._ids(f"{_ANCHOR} {text}")
        size = len(self._anchor)
        ids = joint[size:] if joint[:size] == self._anchor else self._ids(f" {text}")
        if not ids:
            raise UserError(f"the answer {text!r} has no token in this model's vocabulary")
        return ids

    @property
    def start(self) -> int:
        """Token that stands for an empty prompt."""
        for token in (self._tokenizer.bos_token_id, self._tokenizer.eos_token_id):
            if isinstance(token, int):
                return token
        return self.pad

    @property
    def end(self) -> Ids:
        """The end token as ids; empty for a tokenizer without one."""
        token = self._tokenizer.eos_token_id
        return (token,) if isinstance(token, int) else ()

    def unknown(self, ids: Ids) -> bool:
        """Tell whether the tokenizer has put its token for unknown characters among ids."""
        token = self._tokenizer.unk_token_id
        return token in ids and token != self._tokenizer.eos_token_id

    @property
    def pad(self) -> int:
        """Token that fills up rows; always masked, so any token will do."""
        token = self._tokenizer.pad_token_id
        return token if isinstance(token, int) else 0

    @property
    def window(self) -> int | None:
        """Longest input the tokenizer is meant for, if it says so."""
        size = self._tokenizer.model_max_length
        return int(size) if size < _NO_WINDOW else None

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of ids without special tokens and surrounding white space."""
        return self.raw(ids).strip()

    def raw(self, ids: Sequence[int]) -> str:
        """Return the text of ids without special tokens."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def _ids(self, text: str, *, special: bool = False) -> Ids:
        # verbose=False: the length warning would come before the cut that makes it moot.
        encoded = self._tokenizer(text, add_special_tokens=special, verbose=False)
        return tuple(encoded["input_ids"])
