"""A tiny chat model: the word-level tokenizer with a chat template, and conversations for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peml.model.model import LanguageModel
from tests.peml import tiny
from tests.workbench import write_lines

TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'system' and not loop.first %}"
    "{{ raise_exception('the system speaks first') }}{% endif %}"
    "<turn> {{ message['role'] }} {{ message['content'] | trim }} <end> "
    "{% endfor %}"
    "{% if add_generation_prompt %}<turn> assistant {% endif %}"
)
TURNS = ("<turn>", "<end>", "system", "user", "assistant")


def tokenizer() -> Any:
    """Return the tiny tokenizer with a chat template, in the place of some of its words.

    It puts a start token in front of every text, as Llama's does, which the template writes, too.
    """
    from tokenizers import processors

    made: Any = tiny.tokenizer()
    made.add_special_tokens({"additional_special_tokens": ["<turn>", "<end>"]})
    made.add_tokens(["system", "user", "assistant"])
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", made.convert_tokens_to_ids("<s>"))]
    )
    made.chat_template = TEMPLATE
    return made


def llama(seed: int = 0) -> LanguageModel:
    """Return a tiny Llama whose tokenizer has a chat template."""
    lm = tiny.llama(seed, max_position_embeddings=128)
    chat = tokenizer()
    lm.model.resize_token_embeddings(len(chat), mean_resizing=False)
    lm.model.requires_grad_(False)
    return LanguageModel(lm.model, chat, "decoder", "tiny-chat")


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def record(place: int) -> dict[str, list[dict[str, str]]]:
    """Return a conversation of two questions, under a system turn."""
    first, second = ("a", "b") if place % 2 else ("c", "d")
    return {
        "messages": [
            turn("system", "very good film ."),
            turn("user", f"{first} {place % 6}"),
            turn("assistant", "yes"),
            turn("user", f"{second} not"),
            turn("assistant", "no very" if place % 2 else "maybe"),
        ]
    }


def write(path: Path, count: int = 12) -> Path:
    """Write a file of conversations."""
    return write_lines(path, [record(place) for place in range(count)])
