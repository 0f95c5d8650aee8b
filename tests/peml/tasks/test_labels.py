"""What a label means: matched with the choices, counted only where nothing else is possible."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peml.tasks.labels import NoChoice, chosen
from peml.tasks.load import load_task
from peml.tasks.spec import TaskSpec
from peml.tasks.task import Task
from peml.tasks.values import Cell, Written
from prefixnas.base.errors import UserError

STARS = ("1", "2", "3", "4", "5")


def choice(choices: tuple[str, ...], raw: Any, **keys: Any) -> str:
    return choices[chosen(TaskSpec(choices=choices, **keys), choices, raw, declared=False)]


@pytest.mark.parametrize(
    ("choices", "raw", "wanted"),
    [
        (("true", "false"), True, "true"),
        (("true", "false"), False, "false"),
        (("true", "false"), Cell("true"), "true"),
        (STARS, Cell("2"), "2"),
        (STARS, "2", "2"),
        (STARS, 5, "5"),
        (("0", "1"), 1, "1"),
        (("0.5", "1.50"), Written("1.5"), "1.50"),
        (("bad", "good"), 1, "good"),
        (("bad", "good"), Written("1.0"), "good"),
        (("bad", "good"), Cell("1"), "good"),
        (("answer1", "answer2"), 0, "answer1"),
    ],
)
def test_what_a_label_means(choices: tuple[str, ...], raw: Any, wanted: str) -> None:
    assert choice(choices, raw) == wanted


@pytest.mark.parametrize(
    ("choices", "raw", "part"),
    [
        (("no", "yes"), True, "label true is outside .*; map true and false with a label_map"),
        (("True", "False"), True, "label true is outside"),
        (STARS, 2, r"label 2 could be the choice '2', or the number of the choice '3'; say 'labe"),
        (STARS, 0, "label 0 is outside .* say 'label_is: index'"),
        (("01", "02"), 1, "label 1 could be the choice '01', or the number of the choice '02'"),
        (STARS, Cell("0"), "label '0' is outside"),
        (("1 star", "2 stars"), Cell("1"), "label '1' is outside"),
        (("bad", "good"), Cell("01"), "label '01' is outside"),
        (("bad", "good"), Cell("1.0"), "label '1.0' is outside"),
        (("bad", "good"), "Good", "label 'Good' is outside"),
        (("bad", "good"), 0.5, "label 0.5 is outside"),
    ],
)
def test_what_is_refused(choices: tuple[str, ...], raw: Any, part: str) -> None:
    with pytest.raises(NoChoice, match=part):
        choice(choices, raw)


def test_the_user_may_say_how_labels_are_read() -> None:
    assert choice(STARS, 2, label_is="text") == "2"
    assert choice(STARS, 2, label_is="index") == "3"
    with pytest.raises(NoChoice):
        choice(("bad", "good"), "good", label_is="index")


def test_a_label_map_knows_labels_by_text_and_numbers_by_value() -> None:
    stars = {"1": "bad", "5": "good", "true": "good"}
    choices = ("bad", "good")
    for raw in (5, Written("5.0"), Cell("5"), True):
        assert choice(choices, raw, label_map=stars) == "good"
    with pytest.raises(NoChoice):
        choice(choices, Cell("5.0"), label_map=stars)


@given(st.lists(st.text(min_size=1), min_size=2, max_size=6, unique=True), st.data())
def test_a_text_among_the_choices_is_that_choice(choices: list[str], data: st.DataObject) -> None:
    raw = data.draw(st.sampled_from(choices))
    assert choice(tuple(choices), raw) == raw
    assert choice(tuple(choices), Cell(raw)) == raw


def task(tmp_path: Path, rows: list[dict[str, Any]], **keys: Any) -> Task:
    for split in ("train", "validation"):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{split}.jsonl").write_text(text)
    return load_task({"name": "t", "source": str(tmp_path), **keys})


def error_of(tmp_path: Path, rows: list[dict[str, Any]], **keys: Any) -> str:
    with pytest.raises(UserError) as caught:
        task(tmp_path, rows, **keys)
    return str(caught.value)


RATINGS = [{"input": "x", "label": value} for value in (1.5, 2.25, 3.0, 4.5)]


@pytest.mark.parametrize(
    ("odd", "part"),
    [
        (float("nan"), "line 3: the label is nan, which stands for no value"),
        ("good", "line 3: label 'good' is not a number, as in 2 of 10 records"),
        (True, "line 3: the label is a boolean and there are no choices"),
        (None, "line 3: the label: no field 'label'"),
    ],
)
def test_one_odd_label_makes_no_other_kind(tmp_path: Path, odd: Any, part: str) -> None:
    rows = [*RATINGS[:2], {"input": "x", "label": odd}, *RATINGS[2:]]
    assert part in error_of(tmp_path, rows)


def test_one_record_with_choices_makes_a_choice_task(tmp_path: Path) -> None:
    rows = [{"input": "x", "label": "a"}, {"input": "x", "label": "a", "choices": ["a", "b"]}]
    assert "line 1: the record of a choice task has no choices" in error_of(tmp_path, rows)


def test_one_final_makes_no_generation_task(tmp_path: Path) -> None:
    rows = [{**RATINGS[0], "fields": {"final": "1.5"}}, RATINGS[1]]
    assert "line 2: no text in 'fields.final', which other records have" in error_of(tmp_path, rows)


def test_cells_make_the_kinds_that_numbers_make(tmp_path: Path) -> None:
    def kind(*cells: str) -> str:
        for split in ("train", "validation"):
            rows = "".join(f"x,{cell}\n" for cell in cells)
            (tmp_path / f"{split}.csv").write_text(f"input,label\n{rows}")
        return load_task({"name": "t", "source": str(tmp_path)}).kind

    assert kind("1.5", "2", "3e-1") == "regression"
    assert kind("007", "012") == "generation"
    assert kind("red", "blue") == "generation"
    with pytest.raises(UserError, match="whole numbers and there are no choices"):
        kind("1", "2", "3")
    with pytest.raises(UserError, match="line 3: label 'n/a' is not a number"):
        kind("1.5", "n/a", "3.5", "2.5")


def test_numbers_are_written_as_the_data_writes_them(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        lines = ["0.01", "0.040", "-0.04", "1.25", "3", "1e-3", "2.5E2"]
        text = "".join(f'{{"input": "x", "label": {line}}}\n' for line in lines)
        (tmp_path / f"{split}.jsonl").write_text(text)
    found = load_task({"name": "t", "source": str(tmp_path)}).splits["validation"]
    assert [e.answer for e in found] == ["0.01", "0.040", "-0.04", "1.25", "3", "0.001", "250"]
    assert [e.label for e in found] == [0.01, 0.04, -0.04, 1.25, 3.0, 0.001, 250.0]


def test_choices_in_another_order_are_the_same_choices(tmp_path: Path) -> None:
    rows = [
        {"input": "x", "choices": ["bad", "good"], "label": 1},
        {"input": "x", "choices": ["good", "bad"], "label": 0},
        {"input": "x", "choices": ["good", "bad"], "label": "bad"},
    ]
    found = task(tmp_path, rows)
    assert found.choices == ("bad", "good")
    assert [(e.answer, e.label) for e in found.splits["validation"]] == [
        ("good", 1),
        ("good", 1),
        ("bad", 0),
    ]
    assert {e.choices for e in found.splits["validation"]} == {("bad", "good")}


def test_a_field_without_a_text_is_refused_where_it_is_used(tmp_path: Path) -> None:
    rows = [{"input": float("nan"), "label": "a"}] * 2
    assert "line 1: field 'input' is nan, which stands for no value" in error_of(tmp_path, rows)
    assert task(tmp_path, rows, template="{label}?").kind == "generation"


def test_a_label_map_with_one_choice_is_refused(tmp_path: Path) -> None:
    message = error_of(tmp_path, RATINGS, label_map={"1.5": "a"})
    assert "key 'label_map': must map to at least two different choices" in message
