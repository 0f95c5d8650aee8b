"""Token ids of conversations, as a tokenizer's own chat template writes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from peml.batches.tokens import Ids
from peml.model.model import LanguageModel
from peml.tasks.chat import Turn
from prefixnas.base.errors import UserError, first_line

if TYPE_CHECKING:
    from peml.tasks.task import Task

_ASKED, _ANSWERED = Turn("user", "question"), Turn("assistant", "answer")


class ChatFormat:
    """Conversations as a model's chat template writes them.

    What is read is, token for token, ``tokenizer.apply_chat_template`` of the turns with
    ``add_generation_prompt``: the template brings its own special tokens, and no others are put
    around it. An answer has the ids that it has behind that, up to the token that ends a turn. What
    a template writes in front of an answer besides blanks (empty thoughts) is left out: it would be
    part of what is written.

    Args:
        lm: A language model whose tokenizer has a chat template.
        front: Special tokens that the tokenizer puts in front of any text.

    Attributes:
        ends: The token that ends a turn; none where neither template nor tokenizer has one.

    Raises:
        UserError: The template does not take a question and an answer.
    """

    def __init__(self, lm: LanguageModel, front: Ids) -> None:
        self._lm, self._front = lm, front
        asked = self._text([_ASKED], ask=True)
        whole = self._text([_ASKED, _ANSWERED])
        between, found, tail = whole.removeprefix(asked).rpartition(_ANSWERED.content)
        self._lead = between if whole.startswith(asked) and between.isspace() else ""
        self._tail, self._behind, self.ends = self._closing(tail if found else "")

    def prompt(self, turns: Sequence[Turn], limit: int) -> tuple[Ids, bool]:
        """Return the ids of a conversation that waits for an answer, and whether it was cut.

        A long one loses its beginning, as a text does.

        Args:
            turns: At least one.
            limit: The most tokens.

        Raises:
            UserError: The template refuses the turns.
            ValueError: There is no room at all.
        """
        ids = self._prompt(turns)
        if len(ids) <= limit:
            return ids, False
        front = self._front if ids[: len(self._front)] == self._front else ()
        room = limit - len(front)
        if room < 1:
            raise ValueError(f"no room for a prompt in {limit} tokens")
        return front + ids[-room:], True

    def answer(self, turns: Sequence[Turn], text: str) -> Ids:
        """Return the ids of an answer to a conversation, with the token that ends it.

        Raises:
            UserError: The template refuses the turns.
        """
        written = self._lead + text + self._tail
        prompt = self._prompt(turns)
        ids = self._ids(self._text(turns, ask=True) + written)
        # The first letters of an answer may have gone together with the prompt's last.
        apart = ids[: len(prompt)] == prompt
        ids = ids[len(prompt) :] if apart else self._ids(written)
        ids = ids[: len(ids) - self._behind]
        return ids if self._tail else ids + self.ends

    def _closing(self, tail: str) -> tuple[str, int, Ids]:
        """Return what closes a turn, how many tokens follow its end there, and the end."""
        tokenizer, ids = self._lm.tokenizer, self._ids(tail)
        known: Any = getattr(tokenizer, "added_tokens_decoder", {})
        special = {*tokenizer.all_special_ids, *(i for i, token in known.items() if token.special)}
        place = next((place for place, token in enumerate(ids) if token in special), None)
        if place is not None:
            return tail, len(ids) - place - 1, (ids[place],)
        end = tokenizer.eos_token_id
        return "", 0, (end,) if isinstance(end, int) else ()

    def _prompt(self, turns: Sequence[Turn]) -> Ids:
        return tuple(self._applied(turns, True, tokenize=True, tokenizer_kwargs={"verbose": False}))

    def _text(self, turns: Sequence[Turn], *, ask: bool = False) -> str:
        return str(self._applied(turns, ask, tokenize=False))

    def _ids(self, text: str) -> Ids:
        encoded = self._lm.tokenizer(text, add_special_tokens=False, verbose=False)
        return tuple(encoded["input_ids"])

    def _applied(self, turns: Sequence[Turn], ask: bool, **options: Any) -> Any:
        try:
            return self._lm.tokenizer.apply_chat_template(
                [turn._asdict() for turn in turns],
                add_generation_prompt=ask,
                return_dict=False,
                **options,
            )
        except Exception as error:  # whatever a template raises of its own
            roles = ", ".join(turn.role for turn in turns)
            raise UserError(
                f"the chat template of {self._lm.name!r} does not take turns of {roles}: "
                f"{first_line(error)} (chat: off reads them as text)"
            ) from error


def has_chat(lm: LanguageModel) -> bool:
    """Tell whether a model reads conversations by a chat template: a decoder that has one."""
    return lm.family == "decoder" and bool(getattr(lm.tokenizer, "chat_template", None))


def read_as_text(lm: LanguageModel, tasks: Iterable[Task]) -> Iterator[str]:
    """Yield a line for each task whose conversations a model reads as text for want of a template.

    Nothing for those that are to be read so.
    """
    for task in tasks:
        if task.chat == "auto" and not has_chat(lm):
            why = f"{lm.name!r} has no chat template"
            yield f"{task.name}: its conversations are read as text: {why}"
