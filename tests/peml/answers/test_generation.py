from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from peml.answers.generation import generate_answers
from peml.batches.collate import Collator
from peml.model.model import LanguageModel
from tests.peml import tiny

PROMPTS = ("a b c", "d", "e f a b")
TEXT = tiny.task_of("g", [(prompt, "a b") for prompt in PROMPTS], kind="generation")


@torch.no_grad()
def log_probabilities(lm: LanguageModel, prompt: str, written: list[int]) -> Any:
    ids: Any = lm.tokenizer(prompt)["input_ids"]
    if lm.family == "decoder":
        logits = lm.model(input_ids=torch.tensor([ids + written])).logits
    else:
        inputs = {"input_ids": torch.tensor([ids])}
        logits = lm.model(**inputs, decoder_input_ids=torch.tensor([[0, *written]])).logits
    return logits[0, -1].log_softmax(-1)


def likeliest(lm: LanguageModel, prompt: str) -> list[int]:
    """Return the tokens, two at most, whose mean log-probability is the highest of all."""
    end = lm.tokenizer.eos_token_id
    best: tuple[float, list[int]] = (-math.inf, [])
    first = log_probabilities(lm, prompt, [])
    for token in range(len(tiny.WORDS)):
        if token == end:
            best = max(best, (float(first[token]), [token]))
            continue
        for other, value in enumerate(log_probabilities(lm, prompt, [token])):
            best = max(best, (float(first[token] + value) / 2, [token, other]))
    return best[1]


@pytest.mark.parametrize("lm", [tiny.llama(1), tiny.t5(7)], ids=["llama", "t5"])
def test_enough_beams_find_the_best_of_all_answers(lm: LanguageModel) -> None:
    task = replace(TEXT, max_new_tokens=2, num_beams=len(tiny.WORDS))
    found = generate_answers(Collator(lm), task, task.splits["validation"])
    wanted = [
        lm.tokenizer.decode(likeliest(lm, prompt), skip_special_tokens=True) for prompt in PROMPTS
    ]
    assert found == wanted
    greedy = replace(task, num_beams=1)
    assert found != generate_answers(Collator(lm), greedy, task.splits["validation"])


def test_an_answer_behind_shots_ends_where_the_shots_do(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny.llama(7)
    task = replace(TEXT, shots=TEXT.splits["train"][:1], max_new_tokens=8)
    (example, *_) = task.splits["validation"]
    # Blank lines are no token here, and a shot's answer holds "a": that can't be the end.
    monkeypatch.setattr("peml.answers.generation.SHOT_END", "a")
    (whole,) = generate_answers(Collator(lm), task, [example])
    words = whole.split()
    end = next(word for word in words[2:] if word not in ("a", "b", *words[:2]))
    monkeypatch.setattr("peml.answers.generation.SHOT_END", f" {end}")
    passes: list[int] = []
    lm.model.register_forward_pre_hook(lambda *args: passes.append(1))
    assert generate_answers(Collator(lm), task, [example]) == [" ".join(words[: words.index(end)])]
    assert len(passes) == words.index(end) + 1
