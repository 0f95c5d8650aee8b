"""Scores and their standard errors, there and back."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefixnas.run.evaluation import Evaluation, Split
from prefixnas.run.events import read_events
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
    assert len(scored) == 5 and len(columns) == 5  # the mixture was never scored
    for found in (*scored, *(column for column in columns if column)):
        if objective is ToyObjective:
            assert "standard_error" not in found
        else:
            assert found["standard_errors"] == {"first": 0.25, "second": 0.25}
            assert found["standard_error"] == pytest.approx(math.sqrt(2) / 8)
