"""Answers that a run keeps: of several columns, over several evaluations, and damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prefixnas.base.errors import UserError
from prefixnas.run.answers import FILE, Answered, Answers, Example, keep_answers, read_answers


def said(*answers: str, question: str = "1 + 1 =") -> Answers:
    return Answers([Answered(f"{question} {n}", str(n), said) for n, said in enumerate(answers)])


def test_columns_share_the_examples(tmp_path: Path) -> None:
    assert read_answers(tmp_path) == {}
    keep_answers(tmp_path, "untouched", {"sums": said("0", "5")})
    keep_answers(tmp_path, "trained child", {"sums": said("0", "1")})
    keep_answers(tmp_path, "untouched", {"sums": said("7", "5")})  # a resumed run scores it again
    assert read_answers(tmp_path)["sums"].examples == [
        Example("1 + 1 = 0", "0", {"untouched": "7", "trained child": "0"}),
        Example("1 + 1 = 1", "1", {"untouched": "5", "trained child": "1"}),
    ]
    keep_answers(tmp_path, "alone", {"sums": said("3", question="another")})
    assert read_answers(tmp_path)["sums"].examples == [Example("another 0", "0", {"alone": "3"})]


def test_confusion_is_kept_by_column(tmp_path: Path) -> None:
    for column, counts in (("a", [[3, 1], [0, 2]]), ("b", [[4, 0], [1, 1]])):
        keep_answers(tmp_path, column, {"mood": Answers([], ["bad", "good"], counts)})
    kept = read_answers(tmp_path)["mood"]
    assert kept.labels == ["bad", "good"]
    assert kept.confusion == {"a": [[3, 1], [0, 2]], "b": [[4, 0], [1, 1]]}


def test_an_objective_that_shows_nothing_leaves_no_file(tmp_path: Path) -> None:
    keep_answers(tmp_path, "a", {})
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "holds"),
        ('{"mood": {"examples": 3}}', "key 'mood.examples'"),
        (
            json.dumps({"mood": {"labels": ["x"], "confusion": {"a": [[1, 2]]}}}),
            "key 'mood.confusion.a': not a row a label",
        ),
        (
            json.dumps({"mood": {"labels": ["x"], "confusion": {"a": [[10**30]]}}}),
            "key 'mood.confusion.a': not numbers of examples",
        ),
    ],
)
def test_damage_is_one_line_with_the_file(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(UserError, match=FILE) as caught:
        read_answers(tmp_path)
    assert message in str(caught.value) and "\n" not in str(caught.value)
