"""The embedded text suite: six generated tasks over one small invented world.

A demonstration with real training in it, not a benchmark: the sentences come from the grammar and
lexicon beside this file. Examples of one split never appear in another, nor in the corpus that the
embedded models were pre-trained on; words and sentence patterns are shared between all of them.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from peml.embedded import contents
from peml.embedded.contents import Content
from prefixnas.base.errors import UserError, unknown


@dataclass(frozen=True)
class Form:
    """How one task's contents become an example.

    Attributes:
        build: Draws a content for which the given label holds.
        prompt: Template with the content's parts as ``{0}``, ``{1}``, ...
        choices: The answers, in label order.
    """

    build: Callable[[random.Random, int], Content]
    prompt: str
    choices: tuple[str, ...]


FORMS: dict[str, Form] = {
    "sentiment": Form(
        contents.sentiment,
        "Sentence: {0}.\nIs the sentiment of the sentence negative or positive?",
        ("negative", "positive"),
    ),
    "entailment": Form(
        contents.entailment,
        "Premise: {0}.\nHypothesis: {1}.\nAnswer entailment, neutral or contradiction.",
        ("entailment", "neutral", "contradiction"),
    ),
    "paraphrase": Form(
        contents.paraphrase,
        "First: {0}.\nSecond: {1}.\nIs their meaning different or same?",
        ("different", "same"),
    ),
    "acceptability": Form(
        contents.acceptability,
        "Sentence: {0}.\nIs the sentence unacceptable or acceptable?",
        ("unacceptable", "acceptable"),
    ),
    "word_in_context": Form(
        contents.word_in_context,
        "Word: {0}.\nFirst: {1}.\nSecond: {2}.\nSame sense of the word, no or yes?",
        ("no", "yes"),
    ),
    "boolean": Form(
        contents.boolean,
        "Passage: {0}.\nQuestion: {1}?\nAnswer false or true.",
        ("false", "true"),
    ),
}
TASKS: tuple[str, ...] = tuple(FORMS)

# Percent of all contents that belong to each part. A content's part follows from a hash of its
# words, so that no list of examples has to be kept to hold the parts apart.
_SHARES: dict[str, int] = {"pretraining": 50, "train": 35, "validation": 15}
SPLITS: tuple[str, ...] = ("train", "validation")
_PATIENCE = 1000


def part_of(content: Content) -> str:
    """Return the part a content belongs to: ``pretraining``, ``train`` or ``validation``.

    The order of the sentences does not count, so a pair and its mirror image stay together.
    """
    key = "\n".join(sorted(content)).encode()
    point = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") % 100
    for part, share in _SHARES.items():
        if point < share:
            return part
        point -= share
    raise AssertionError("the shares add up to 100")


def draw(task: str, part: str, label: int, rng: random.Random) -> Content:
    """Draw a content of one part for which `label` holds."""
    for _ in range(_PATIENCE):
        content = FORMS[task].build(rng, label)
        if part_of(content) == part:
            return content
    raise AssertionError(f"no content of {task} in {part} after {_PATIENCE} draws")


def generate(task: str, split: str, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Generate examples of a task, the same in every process.

    Labels are balanced: any run of ``len(choices)`` examples from the start holds each label once.
    A longer list with the same seed begins with the shorter one.

    Args:
        task: One of `TASKS`.
        split: One of `SPLITS`.
        count: How many examples, all different.
        seed: Another seed gives other examples of the same split.

    Returns:
        Dicts with ``input`` (the whole prompt), ``choices`` (the answers) and ``label`` (index
        into the choices).

    Raises:
        UserError: An unknown task or split, a negative count, or more examples than there are.
    """
    if task not in FORMS:
        raise unknown("embedded task", task, TASKS)
    if split not in SPLITS:
        raise unknown("split", split, SPLITS, where=f"embedded task {task}")
    if count < 0:
        raise UserError(f"embedded task {task}: count must be at least 0, got {count}")
    form = FORMS[task]
    # A string seeds through SHA-512: independent of PYTHONHASHSEED.
    rng = random.Random(f"{task}/{split}/{seed}")
    seen: set[Content] = set()
    examples: list[dict[str, Any]] = []
    labels: list[int] = []
    while len(examples) < count:
        if not labels:
            labels = list(range(len(form.choices)))
            rng.shuffle(labels)
        label = labels.pop()
        content = _unseen(task, split, label, rng, seen)
        seen.add(content)
        examples.append(
            {
                "input": form.prompt.format(*content),
                "choices": list(form.choices),
                "label": label,
            }
        )
    return examples


def _unseen(task: str, split: str, label: int, rng: random.Random, seen: set[Content]) -> Content:
    for _ in range(_PATIENCE):
        content = draw(task, split, label, rng)
        if content not in seen:
            return content
    raise UserError(
        f"embedded task {task}: {split} has fewer than {len(seen) + 1} different examples"
    )
