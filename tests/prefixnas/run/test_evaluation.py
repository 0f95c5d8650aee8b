"""Scores and their standard errors, there and back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap

from prefixnas.run.answers import Answered, Answers, read_answers
from prefixnas.run.evaluation import (
    ARGMAX,
    MIXTURE,
    TRAINED,
    UNTOUCHED,
    Evaluation,
    Split,
    differences,
)
from prefixnas.run.event_file import read_events
from prefixnas.run.recipe import Recipe
from prefixnas.run.run import Budget, Run
from prefixnas.run.search import search
from prefixnas.space.loading import load_space
from prefixnas.strategies.fixed import Fixed
from prefixnas.testing import ToyObjective


def evaluation(errors: dict[str, float]) -> Evaluation:
    means = {"a": 0.5, "b": 0.75}
    return Evaluation({task: {"m": score} for task, score in means.items()}, means, errors)


def test_that_of_the_average_is_that_of_independent_tasks() -> None:
    assert evaluation({"a": 0.3, "b": 0.4}).standard_error == pytest.approx(0.25)


@given(st.dictionaries(st.sampled_from(["a", "b"]), st.floats(0, 1)))
def test_one_comes_back_as_it_went(errors: dict[str, float]) -> None:
    one = evaluation(errors)
    written = json.loads(json.dumps(one.to_json()))
    assert Evaluation.from_json(written) == one
    assert (one.standard_error is None) == (len(errors) < 2)


def test_without_standard_errors_nothing_is_said_of_them() -> None:
    written = evaluation({}).to_json()
    assert set(written) == {"scores", "task_scores", "score"}
    assert Evaluation.from_json(written).standard_error is None


class Sure(ToyObjective):
    """The toy, with standard errors."""

    def evaluate(self, split: Split) -> Evaluation:
        found = super().evaluate(split)
        return Evaluation(found.scores, found.task_scores, dict.fromkeys(found.task_scores, 0.25))


@pytest.mark.parametrize("objective", [Sure, ToyObjective])
def test_events_and_result_hold_them_if_there_are_any(
    objective: type[ToyObjective], tmp_path: Path
) -> None:
    run = Run(tmp_path, load_space("mlp"), objective(), Budget(0, 2))
    search(run, Fixed(), Recipe())
    events = [e.to_json() for e in read_events(tmp_path)]
    scored = [event for event in events if event["event"] == "evaluation"]
    columns = json.loads((tmp_path / "result.json").read_text())["columns"].values()
    assert len(scored) == 4 and len(columns) == 4  # the mixture was never scored
    for found in (*scored, *(column for column in columns if column)):
        if objective is ToyObjective:
            assert "standard_error" not in found
        else:
            assert found["standard_errors"] == {"first": 0.25, "second": 0.25}
            assert found["standard_error"] == pytest.approx(math.sqrt(2) / 8)


# Two models on the same examples


def scored(values: Sequence[float], task: str = "a") -> Evaluation:
    """Return the evaluation of a task whose score is the mean of these values."""
    mean = float(np.mean(values))
    moved = [value - mean for value in values]
    return Evaluation({task: {"accuracy": mean}}, {task: mean}, {}, {task: moved})


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=40))
def test_a_difference_scatters_as_the_paired_values_do(pairs: list[tuple[bool, bool]]) -> None:
    ours, theirs = np.array(pairs, dtype=np.float64).T
    less = scored(ours.tolist()).less(scored(theirs.tolist()))
    assert less.task_scores["a"] == pytest.approx(ours.mean() - theirs.mean(), abs=1e-12)
    independent = np.std(ours - theirs, ddof=1) / np.sqrt(len(pairs))
    assert less.standard_errors["a"] == pytest.approx(independent, abs=1e-12)


def test_a_bootstrap_finds_the_same_interval_of_a_difference() -> None:
    generator = np.random.default_rng(0)
    ours, theirs = (generator.random((2, 300)) < [[0.84], [0.8]]).astype(float)
    less = scored(ours.tolist()).less(scored(theirs.tolist()))
    drawn = bootstrap(
        (ours, theirs), lambda x, y, axis: x.mean(axis) - y.mean(axis), paired=True, rng=generator
    )
    assert less.standard_error == pytest.approx(drawn.standard_error, rel=0.05)


def test_what_both_answer_alike_does_not_scatter() -> None:
    one = scored([1, 0, 1, 1])
    assert one.less(one).standard_error == 0
    assert one.less(scored([1, 0])).standard_errors == {}  # other examples: nothing to pair
    assert one.less(scored([1, 0], "b")).task_scores == {}


def test_differences_are_of_the_trained_child_and_over_the_untouched_model() -> None:
    columns = {UNTOUCHED: scored([0, 0, 1]), "alone": scored([0, 1, 1]), MIXTURE: None}
    found = differences({**columns, ARGMAX: scored([1, 0, 0]), TRAINED: scored([1, 1, 1])})
    assert [(less["of"], less["over"]) for less in found] == [
        (TRAINED, UNTOUCHED),
        (TRAINED, "alone"),
        (TRAINED, ARGMAX),
        ("alone", UNTOUCHED),
        (ARGMAX, UNTOUCHED),
    ]
    assert found[0]["examples"] == {"a": 3}
    assert found[0]["score"] == pytest.approx(2 / 3)


class Paired(ToyObjective):
    """The toy, as if its score were the mean over examples, some of whose answers are shown."""

    about: Mapping[str, str] = {"model": "a line"}

    def evaluate(self, split: Split) -> Evaluation:
        found = super().evaluate(split)
        moved = {task: [value, -value] for task, value in found.task_scores.items()}
        shown = {"first": Answers([Answered("1 + 1", "2", f"{found.score:.3f}")])}
        return replace(found, influences=moved, answers=shown)


def test_a_run_keeps_differences_answers_and_what_it_is_about(tmp_path: Path) -> None:
    run = Run(tmp_path, load_space("mlp"), Paired(), Budget(0, 2))
    result = search(run, Fixed(), Recipe())
    written = json.loads((tmp_path / "result.json").read_text())
    assert [less["over"] for less in written["differences"] if less["of"] == TRAINED] == [
        label for label, column in result.columns.items() if column and label != TRAINED
    ]
    assert all(less["standard_error"] is not None for less in written["differences"])
    assert written["parameters"] == written["trained_parameters"] > 0
    assert "influences" not in json.dumps(written) + (tmp_path / "metrics.jsonl").read_text()
    (example,) = read_answers(tmp_path)["first"].examples
    assert set(example.answers) == {label for label, column in result.columns.items() if column}
    start = read_events(tmp_path)[0].to_json()
    assert start["about"] == {"model": "a line"}
    began = datetime.fromisoformat(start["began"])
    assert abs(datetime.now(tz=UTC) - began) < timedelta(hours=1)
