"""Ambiguous words of the embedded text world: two senses each, shown by their contexts."""

from __future__ import annotations

from importlib import resources
from typing import NamedTuple

from prefixnas.base.yaml import load_yaml


class Sense(NamedTuple):
    """One meaning of an ambiguous word: what it is about, and sentences that show it.

    The slot ``{n}`` stands for a person's name.
    """

    topic: str
    contexts: tuple[str, ...]


def _read() -> dict[str, list[Sense]]:
    text = resources.files(__package__).joinpath("senses.yaml").read_text(encoding="utf-8")
    words: dict[str, dict[str, list[str]]] = load_yaml(text, "senses.yaml")
    return {
        word: [Sense(topic, tuple(contexts)) for topic, contexts in senses.items()]
        for word, senses in words.items()
    }


SENSES = _read()
TOPICS = tuple(sorted({sense.topic for pair in SENSES.values() for sense in pair}))
