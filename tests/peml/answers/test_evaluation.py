from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from peml.answers.choices import choice_scores
from peml.answers.evaluation import Answer, answer_examples, evaluate_tasks
from peml.answers.heads import TaskHeads
from peml.batches.collate import Collator
from peml.tasks.examples import Example
from peml.tasks.task import Task
from prefixnas.base.errors import UserError
from tests.peml import tiny

PROMPTS = ["a b c", "d", "e f a b", "b", "c c c", "f e d c b a"]
CHOICES = ("bad", "very good", "yes")
CHOICE = tiny.task_of("t", [(p, CHOICES[i % 3]) for i, p in enumerate(PROMPTS)], choices=CHOICES)
TEXT = tiny.task_of(
    "g", [(p, "a b") for p in PROMPTS], kind="generation", metrics=("exact_match", "rougeL")
)
RATING = tiny.task_of(
    "r",
    [(p, str(float(i))) for i, p in enumerate(PROMPTS)],
    kind="regression",
    metrics=("pearson", "spearman"),
)


def predictions(*args: Any, **options: Any) -> list[Any]:
    return [answer.prediction for answer in answer_examples(*args, **options)]


@pytest.mark.parametrize("make", [tiny.llama, tiny.t5])
@pytest.mark.parametrize("batch_tokens", [1, 12, 4096])
def test_predictions_keep_the_order_whatever_the_batches(make: Any, batch_tokens: int) -> None:
    lm = make()
    collator = Collator(lm)
    for task in (CHOICE, TEXT):
        examples = task.splits["validation"]
        alone = [predictions(collator, task, [example])[0] for example in examples]
        assert predictions(collator, task, examples, batch_tokens=batch_tokens) == alone
        assert len(set(map(str, alone))) > 1


def test_choices_are_the_likeliest() -> None:
    lm = tiny.llama()
    collator = Collator(lm)
    examples = CHOICE.splits["validation"]
    for normalisation in ("sum", "mean"):
        chosen: Any = normalisation
        scores = choice_scores(collator, CHOICE, examples, normalisation=chosen)
        wanted = [row.index(max(row)) for row in scores]
        assert predictions(collator, CHOICE, examples, normalisation=chosen) == wanted


@pytest.mark.parametrize("make", [tiny.llama, tiny.t5])
@torch.no_grad()
def test_generation_is_greedy_step_by_step(make: Any) -> None:
    lm = make()
    tokenizer: Any = lm.tokenizer
    found = predictions(Collator(lm), TEXT, TEXT.splits["validation"])
    for prompt, answer in zip(PROMPTS, found, strict=True):
        ids = tokenizer(prompt)["input_ids"]
        written: list[int] = []
        # The longest training answer has two tokens and an end token.
        while len(written) < 3 and (not written or written[-1] != tokenizer.eos_token_id):
            if lm.family == "decoder":
                logits = lm.model(input_ids=torch.tensor([ids + written])).logits
            else:
                logits = lm.model(
                    input_ids=torch.tensor([ids]), decoder_input_ids=torch.tensor([[0, *written]])
                ).logits
            written.append(int(logits[0, -1].argmax()))
        assert answer == tokenizer.decode(written, skip_special_tokens=True).strip()


def test_max_new_tokens_of_a_task() -> None:
    lm = tiny.llama()
    short = replace(TEXT, max_new_tokens=1)
    found = predictions(Collator(lm), short, short.splits["validation"])
    assert max(len(str(answer).split()) for answer in found) == 1


class Speaker:
    """Stands for `generate_answers`: what a trained model might write."""

    def __init__(self, answers: list[str]) -> None:
        self.answers = dict(zip(PROMPTS, answers, strict=True))

    def __call__(self, collator: Any, task: Any, examples: Any, beginning: Any) -> list[str]:
        return [self.answers[example.prompt] for example in examples]


def test_written_numbers_are_parsed_and_missing_ones_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answers = ["0.5", "it is 1.0", "1e999", "3.0 or 4", "4", "5.0"]
    monkeypatch.setattr("peml.answers.evaluation.generate_answers", Speaker(answers))
    lm, seen = tiny.llama(), list[Answer]()
    with caplog.at_level(logging.WARNING):
        found = evaluate_tasks(
            lm, [RATING], seen=lambda task, examples, answers: seen.extend(answers)
        )
    assert [answer.prediction for answer in seen] == [0.5, 1.0, None, 3.0, 4.0, 5.0]
    right = [float(example.label) for example in RATING.splits["validation"]]
    counted = np.corrcoef([0.5, 1.0, 2.5, 3.0, 4.0, 5.0], right)[0, 1]
    assert found.scores["r"]["pearson"] == pytest.approx(counted)
    assert "r: 1 of 6 answers hold no number and count as the training mean 2.50" in caplog.text


def test_final_numbers_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "peml.answers.evaluation.generate_answers",
        Speaker(["1 + 1 = 2", "3", "2.0", "x", "2 3", "#### 2"]),
    )
    task = tiny.task_of(
        "n", [(p, "2") for p in PROMPTS], kind="generation", metrics=("number_match",)
    )
    assert evaluate_tasks(tiny.llama(), [task]).scores == {"n": {"number_match": 0.5}}


def test_heads_decide_for_encoders() -> None:
    lm = tiny.bert()
    heads = TaskHeads.for_tasks(32, [CHOICE, RATING], seed=3).double()
    collator = Collator(lm)
    for task in (CHOICE, RATING):
        batch = collator.prompts(task, task.splits["validation"])
        outputs = heads(task.name, lm.model(**batch).last_hidden_state, batch["attention_mask"])
        found = predictions(collator, task, task.splits["validation"], heads=heads, batch_tokens=8)
        if task is CHOICE:
            assert found == outputs.argmax(-1).tolist()
        else:
            assert found == pytest.approx(outputs.squeeze(-1).tolist(), abs=1e-12)
    scores = evaluate_tasks(lm, [CHOICE, RATING], heads=heads).scores
    assert {task: set(values) for task, values in scores.items()} == {
        "t": {"accuracy"},
        "r": {"pearson", "spearman"},
    }


def test_a_head_cannot_choose_what_an_example_does_not_offer() -> None:
    lm = tiny.bert()
    heads = TaskHeads.for_tasks(32, [CHOICE]).double()
    with torch.no_grad():
        layer: Any = heads.layers["task_t"]
        layer.weight.zero_()
        layer.bias.copy_(torch.tensor([0.0, 1.0, 2.0]))
    fewer = replace(CHOICE.splits["validation"][0], choices=CHOICES[:2], id="fewer")
    examples = [fewer, CHOICE.splits["validation"][1]]
    assert predictions(Collator(lm), CHOICE, examples, heads=heads) == [1, 2]


def test_a_head_knows_choices_by_their_texts() -> None:
    lm = tiny.bert()
    heads = TaskHeads.for_tasks(32, [CHOICE], seed=3).double()
    examples = CHOICE.splits["validation"]
    turned = CHOICE.in_order_of(CHOICES[::-1])
    found = predictions(Collator(lm), CHOICE, examples, heads=heads)
    again = predictions(Collator(lm), turned, turned.splits["validation"], heads=heads)
    assert [CHOICES[int(p)] for p in found] == [CHOICES[::-1][int(p)] for p in again]
    with pytest.raises(UserError, match="task 't': its head: unknown choice 'no'"):
        heads.places("t", ("no", "yes"))


def test_encoders_need_heads_and_cannot_generate() -> None:
    lm = tiny.bert()
    with pytest.raises(ValueError, match="needs task heads"):
        evaluate_tasks(lm, [CHOICE])
    with pytest.raises(UserError, match="free generation"):
        evaluate_tasks(lm, [TEXT])


def test_metrics_and_the_split() -> None:
    lm = tiny.llama()
    collator = Collator(lm)
    found = predictions(collator, CHOICE, CHOICE.splits["validation"])
    right = [p == e.label for p, e in zip(found, CHOICE.splits["validation"], strict=True)]
    splits = {**CHOICE.splits, "selection": CHOICE.splits["selection"][:1]}
    task = replace(CHOICE, splits=splits)
    scores = evaluate_tasks(lm, [task], collator=collator).scores
    assert scores == {"t": {"accuracy": sum(right) / 6}}
    assert evaluate_tasks(lm, [task], "selection").scores == {"t": {"accuracy": float(right[0])}}


def test_limit_takes_always_the_same_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def note(collator: Any, task: Any, examples: Any, **options: Any) -> list[Answer]:
        seen.append([example.id for example in examples])
        return [Answer(0)] * len(examples)

    monkeypatch.setattr("peml.answers.evaluation.answer_examples", note)
    for _ in range(2):
        evaluate_tasks(tiny.llama(), [CHOICE], limit=3)
    evaluate_tasks(tiny.llama(), [CHOICE], limit=100)
    assert len(seen[0]) == 3 and seen[0] == seen[1]
    assert len(seen[2]) == 6


def test_evaluating_mid_training_changes_nothing() -> None:
    lm = tiny.t5()
    lm.model.train()
    lm.model.lm_head.eval()
    before = [module.training for module in lm.model.modules()]
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = evaluate_tasks(lm, [CHOICE, TEXT])
    assert evaluate_tasks(lm, [CHOICE, TEXT]) == first
    assert [module.training for module in lm.model.modules()] == before
    assert torch.equal(torch.get_rng_state(), state)
    lm.model.eval()
    assert evaluate_tasks(lm, [CHOICE, TEXT]) == first


def some_choices() -> Task:
    """A task whose examples list two of three choices each, or all, the right one among them."""
    listed = [CHOICES, CHOICES[1:], CHOICES[::2], CHOICES[:2], CHOICES[:0:-1], CHOICES[::-2]]

    def example(given: Example, choices: tuple[str, ...]) -> Example:
        return replace(given, choices=choices, label=choices.index(given.answer))

    splits = {
        name: tuple(example(*pair) for pair in zip(found, listed, strict=True))
        for name, found in CHOICE.splits.items()
    }
    return replace(CHOICE, splits=splits, metrics=("accuracy", "macro_f1", "matthews"))


@pytest.mark.parametrize("make", [tiny.bert, tiny.llama])
def test_metrics_compare_choices_by_their_texts(make: Any) -> None:
    from sklearn.metrics import f1_score, matthews_corrcoef

    lm, task, texts = make(), some_choices(), list[str]()
    heads = TaskHeads.for_tasks(32, [task], seed=3).double() if lm.family == "encoder" else None

    def seen(task: Task, examples: Sequence[Example], answers: Sequence[Answer]) -> None:
        pairs = zip(examples, answers, strict=True)
        texts.extend(e.choices[int(a.prediction or 0)] for e, a in pairs)

    found = evaluate_tasks(lm, [task], heads=heads, seen=seen).scores["t"]
    right = [example.answer for example in task.splits["validation"]]
    assert 0 < found["accuracy"] == sum(map(str.__eq__, texts, right)) / 6 < 1
    assert found["macro_f1"] == pytest.approx(f1_score(right, texts, average="macro"))
    assert found["matthews"] == pytest.approx(matthews_corrcoef(right, texts))


def test_a_head_learns_the_choices_that_it_is_asked_for() -> None:
    task, collator = some_choices(), Collator(tiny.bert())
    examples = task.splits["train"]
    heads = TaskHeads.for_tasks(32, [task])
    wanted = [heads.places("t", [example.answer])[0] for example in examples]
    assert collator.batch(task, examples).labels.tolist() == wanted == [0, 1, 2] * 2
    assert [example.label for example in examples] != wanted
