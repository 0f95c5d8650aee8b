"""Which answers a report shows."""

from __future__ import annotations

import json
from dataclasses import asdict

from peml.answers.evaluation import Answer
from peml.answers.shown import Shown, shown_answers
from prefixnas.run.answers import MOST_CHARACTERS, MOST_EXAMPLES, MOST_LABELS
from tests.peml import tiny

CHOICES = ("bad", "good")
MOOD = tiny.task_of("mood", [(f"film {i}", CHOICES[i % 2]) for i in range(30)], choices=CHOICES)
EXAMPLES = MOOD.splits["validation"]


def test_the_same_ten_examples_are_shown_whatever_the_answers() -> None:
    shown = [
        shown_answers(MOOD, EXAMPLES, [Answer(said, [0.5, 0.5])] * len(EXAMPLES)).examples
        for said in (0, 1)
    ]
    assert len(shown[0]) == MOST_EXAMPLES
    assert [example.input for example in shown[0]] == [example.input for example in shown[1]]
    assert {example.answer for example in shown[0]} == {"bad"}
    assert {(e.input, e.expected) for e in shown[0]} <= {(e.prompt, e.answer) for e in EXAMPLES}


def test_confusion_counts_all_examples() -> None:
    answers = [Answer(0 if index < 20 else 1) for index in range(len(EXAMPLES))]
    found = shown_answers(MOOD, EXAMPLES, answers)
    pairs = [(e.label, a.prediction) for e, a in zip(EXAMPLES, answers, strict=True)]
    assert found.labels == ["bad", "good"]
    assert found.confusion == [[pairs.count((row, column)) for column in (0, 1)] for row in (0, 1)]


def test_texts_and_numbers_have_no_classes() -> None:
    task = tiny.task_of("t", [("a", "b c")], kind="generation", metrics=("exact_match",))
    found = shown_answers(task, task.splits["validation"], [Answer("b")])
    assert [(e.expected, e.answer) for e in found.examples] == [("b c", "b")]
    assert not found.labels and not found.confusion
    rating = tiny.task_of("r", [("a", "0.5")], kind="regression", metrics=("pearson",))
    numbers = shown_answers(rating, rating.splits["validation"], [Answer(0.123456)])
    assert numbers.examples[0].answer == "0.1235"


def test_what_is_kept_of_a_task_is_bounded() -> None:
    many = tuple(f"class{i}" for i in range(MOST_LABELS + 1))
    task = tiny.task_of("many", [("x " * 5000 + "\ud800", many[0])], choices=many)
    shown = Shown()
    shown.add(task, task.splits["validation"], [Answer(1)])
    found = shown.answers["many"]
    assert not found.labels and not found.confusion
    assert len(found.examples[0].input) <= MOST_CHARACTERS
    assert json.dumps(asdict(found), ensure_ascii=False).encode("utf-8")
