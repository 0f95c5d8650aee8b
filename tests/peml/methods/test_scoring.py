"""Scores of choices, read with caches and padding, equal a plain pass each, with any method."""

from __future__ import annotations

import pytest
import torch

from peml.answers.choices import choice_scores
from peml.answers.evaluation import answer_examples
from peml.batches.collate import Collator
from peml.methods.method import METHODS, Setting, attach_method
from tests.peml import tiny
from tests.peml.methods.test_contract import UNSUPPORTED, make

CHOICES = ("good", "very good", "so bad")
ROWS = [(text, "good") for text in ("film plot a", "film plot a b", "film plot a b c d e")]
NAMES = [name for name in METHODS.names() if (name, "llama") not in UNSUPPORTED]


@pytest.mark.parametrize("name", NAMES)
def test_scores_equal_one_pass_per_choice(name: str) -> None:
    lm, task = tiny.llama(), tiny.task_of("mood", ROWS, choices=CHOICES)
    attached = attach_method(make(name), lm, Setting(("mood", "other"), total_steps=10))
    lm.model.double()
    generator = torch.Generator().manual_seed(0)
    for parameter in attached.parameters():
        parameter.requires_grad_(False)
        parameter += 0.3 * torch.randn(parameter.shape, generator=generator).to(parameter)
    lm.model.train(False)
    examples = task.splits["train"]
    with torch.no_grad(), lm.on("mood"):
        wanted = [[_plain(lm, e.prompt, choice) for choice in CHOICES] for e in examples]
        scores = choice_scores(Collator(lm), task, examples)
    for row, expected in zip(scores, wanted, strict=True):
        assert row == pytest.approx(expected, abs=1e-9)
    answers = answer_examples(Collator(lm), task, examples, batch_tokens=10_000)
    best = [max(range(len(row)), key=row.__getitem__) for row in wanted]
    assert [answer.prediction for answer in answers] == best


def _plain(lm: tiny.LanguageModel, prompt: str, choice: str) -> float:
    """Return the log-probability of a choice behind a prompt: one row, no padding, no cache."""
    first, ids = (lm.tokenizer(text)["input_ids"] for text in (prompt, choice))
    logits = lm.model(input_ids=torch.tensor([first + ids]), use_cache=False).logits[0]
    rows = logits[len(first) - 1 : -1].log_softmax(-1)
    return sum(float(row[token]) for row, token in zip(rows, ids, strict=True))
