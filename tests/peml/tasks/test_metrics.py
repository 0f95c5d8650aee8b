from __future__ import annotations

import math
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from peml.tasks import metrics
from prefixnas.base.errors import UserError

# 2 of 5 right by hand: true positives 1, false positives 2, false negatives 1, true negatives 1.
PREDICTED = [1, 1, 1, 0, 0]
WANTED = [1, 0, 0, 0, 1]


def test_choice_metrics_by_hand() -> None:
    values = metrics.compute(["accuracy", "f1", "macro_f1", "matthews"], PREDICTED, WANTED)
    positive, negative = 2 / (2 + 2 + 1), 2 / (2 + 1 + 2)
    assert values["accuracy"] == pytest.approx(0.4)
    assert values["f1"] == pytest.approx(positive)
    assert values["macro_f1"] == pytest.approx((positive + negative) / 2)
    assert values["matthews"] == pytest.approx((1 * 1 - 2 * 1) / math.sqrt(3 * 2 * 3 * 2))


def test_correlations_by_hand() -> None:
    predicted, wanted = [1.0, 2.0, 4.0], [1.0, 2.0, 3.0]
    mean = 7 / 3
    covariance = sum((p - mean) * (w - 2) for p, w in zip(predicted, wanted, strict=True))
    spread = math.sqrt(sum((p - mean) ** 2 for p in predicted) * 2)
    values = metrics.compute(["pearson", "spearman"], predicted, wanted)
    assert values["pearson"] == pytest.approx(covariance / spread)
    assert values["spearman"] == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["pearson", "spearman", "matthews"])
@pytest.mark.parametrize(("predicted", "wanted"), [([1, 1, 1], [0, 1, 2]), ([0, 1, 2], [1, 1, 1])])
def test_constant_predictions_count_as_zero(
    name: str, predicted: list[int], wanted: list[int]
) -> None:
    assert metrics.compute([name], predicted, wanted) == {name: 0.0}


@pytest.mark.parametrize("name", ["pearson", "spearman"])
@pytest.mark.parametrize(
    "odd", [[math.inf, 1.0, 2.0], [math.nan, 1.0, 2.0], [1e308, -1e308, 1.7e308]]
)
def test_what_is_no_finite_number_makes_no_score_that_is_none(name: str, odd: list[float]) -> None:
    for pair in ((odd, [1.0, 3.0, 2.0]), ([1.0, 3.0, 2.0], odd), (odd, odd)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            values, error, moved = metrics.measure([name], *pair)
        assert all(map(math.isfinite, [values[name], error or 0.0, *moved]))


def test_f1_without_a_positive_is_zero() -> None:
    assert metrics.compute(["f1"], [0, 0], [0, 0]) == {"f1": 0.0}


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1))
def test_choice_metrics_stay_in_range(pairs: list[tuple[int, int]]) -> None:
    predicted, wanted = [p for p, _ in pairs], [w for _, w in pairs]
    values = metrics.compute(["accuracy", "macro_f1", "matthews"], predicted, wanted)
    assert 0 <= values["accuracy"] <= 1
    assert 0 <= values["macro_f1"] <= 1
    assert -1 - 1e-9 <= values["matthews"] <= 1 + 1e-9
    perfect = metrics.compute(["accuracy", "macro_f1"], wanted, wanted)
    assert perfect == {"accuracy": 1.0, "macro_f1": 1.0}


def test_squad_match_ignores_case_articles_and_punctuation() -> None:
    predicted = ["The  Cat.", "a dog", "cat", ""]
    assert metrics.compute(["squad_match"], predicted, ["cat", "Dog!", "cats", "x"]) == {
        "squad_match": 0.5
    }


DIFFERENT = [
    *(("-5", "5"), ("1.5", "15"), ("C++", "C"), ("a", "the"), ("A", "a"), ("$5", "5")),
    *(("<=", ">="), ("{", "}"), ("50%", "50"), ("a b", "ab"), ("", "an"), ("1,5", "15")),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different_answers_are_no_exact_match(one: str, other: str) -> None:
    assert metrics.compute(["exact_match"], [one], [other]) == {"exact_match": 0.0}
    assert metrics.compute(["exact_match"], [f" {one}\n"], [one]) == {"exact_match": 1.0}


@given(st.text(), st.text())
def test_exact_match_is_equality_but_for_white_space(one: str, other: str) -> None:
    same = one.split() == other.split()
    assert metrics.compute(["exact_match"], [one], [other]) == {"exact_match": float(same)}


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1,234,567.5", [1234567.5]),
        ("1,2", [1.0, 2.0]),
        ("1,2345", [1.0, 2345.0]),
        ("5-3", [5.0, 3.0]),
        ("5 - 3", [5.0, 3.0]),
        ("is -3", [-3.0]),
        ("\u22123", [-3.0]),
        ("1e-05", [1e-05]),
        ("-.5", [-0.5]),
        ("2.5.", [2.5]),
    ],
)
def test_numbers_in_a_text(text: str, numbers: list[float]) -> None:
    assert metrics.numbers_in(text) == numbers


def test_a_constant_prediction_is_pointed_out() -> None:
    note = metrics.constant_note([1, 1, 1], {"f1": 0.8, "accuracy": 2 / 3})
    assert note == "all 3 predictions are the same; that alone scores f1 0.800, accuracy 0.667"
    assert metrics.constant_note([1, 0, 1], {"f1": 0.8}) is None
    assert metrics.constant_note([1], {"f1": 1.0}) is None


@pytest.mark.parametrize(
    ("text", "reference", "hit"),
    [
        ("so 3 + 4 = 7", "7", True),
        ("#### 1,234", "1234", True),
        ("it costs $7.00.", "7", True),
        ("1.5", "15", False),
        ("-3", "3", False),
        ("0.0000001", "0.0000002", False),
        ("1,2", "12", False),
        ("1e3", "1000", True),
        ("none", "7", False),
        ("7 or 8", "7", False),
    ],
)
def test_number_match(text: str, reference: str, hit: bool) -> None:
    assert metrics.compute(["number_match"], [text], [reference]) == {"number_match": float(hit)}


@given(st.floats(-1e6, 1e6).map(lambda value: round(value, 1)))
def test_a_number_is_read_back(value: float) -> None:
    assert metrics.numbers_in(f"It is {value:.1f}.") == [value]


WORDS = "the cat cats ran running run mat national nationality 3.5 C++ don't élan flies x_y a-b"
TEXTS = st.lists(st.sampled_from([*WORDS.split(), ".", "\n"]), max_size=12).map(" ".join)
ROUGE = ("rouge1", "rouge2", "rougeL")


def test_rouge_by_hand() -> None:
    # In common: three words, the pair "the cat", and in order "the cat" and "mat".
    found = metrics.compute(ROUGE, ["the cat mat now"], ["the cat on the mat"])
    for name, common, written, wanted in (
        ("rouge1", 3, 4, 5),
        ("rouge2", 1, 3, 4),
        ("rougeL", 3, 4, 5),
    ):
        precision, recall = common / written, common / wanted
        assert found[name] == pytest.approx(2 * precision * recall / (precision + recall))


@given(TEXTS | st.text(max_size=30), TEXTS | st.text(max_size=30))
@settings(deadline=None)
def test_rouge_is_what_the_original_computes(prediction: str, reference: str) -> None:
    wanted = RougeScorer(ROUGE, use_stemmer=True).score(reference, prediction)
    found = metrics.compute(ROUGE, [prediction], [reference])
    for name in ROUGE:
        assert found[name] == pytest.approx(wanted[name].fmeasure, abs=1e-6)


def test_a_score_is_a_mean() -> None:
    assert metrics.task_score({"accuracy": 0.5, "f1": 0.7}) == pytest.approx(0.6)


def test_checks() -> None:
    with pytest.raises(UserError, match=r"x: unknown metric 'acuracy'.*'accuracy'"):
        metrics.check_metrics(["acuracy"], "choice", 2, "x")
    with pytest.raises(UserError, match=r"'f1' needs exactly two choices, not 3; use 'macro_f1'"):
        metrics.check_metrics(["f1"], "choice", 3, "x")
    with pytest.raises(UserError, match="not for generation tasks"):
        metrics.check_metrics(["accuracy"], "generation", 0, "x")
    for kind in ("choice", "regression", "generation"):
        metrics.check_metrics(metrics.default_metrics("any", kind), kind, 2, "x")


def test_known_names_only_where_the_kind_fits() -> None:
    assert metrics.default_metrics("stsb", "choice") == ("accuracy",)


def test_uneven_lists_are_refused() -> None:
    with pytest.raises(ValueError, match="2 predictions for 1"):
        metrics.compute(["accuracy"], [1, 0], [1])
    with pytest.raises(ValueError, match="0 predictions"):
        metrics.compute(["accuracy"], [], [])
