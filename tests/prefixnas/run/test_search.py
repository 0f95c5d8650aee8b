"""The driver: columns, equal budgets, the files of a run."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prefixnas.base.errors import UserError
from prefixnas.report.run_page import write_report
from prefixnas.run.recipe import Recipe
from prefixnas.run.result import SearchResult
from prefixnas.run.run import Budget, Run
from prefixnas.run.search import search
from prefixnas.run.strategy import Strategy
from prefixnas.space.architecture import Architecture
from prefixnas.space.loading import load_space
from prefixnas.space.nodes import Choice, Seq, Stack
from prefixnas.space.space import SearchSpace
from prefixnas.strategies.darts import Darts
from prefixnas.strategies.fixed import Fixed
from prefixnas.strategies.random import RandomSearch
from prefixnas.testing import ToyObjective

BUDGET = Budget(12, 8)


def go(
    folder: Path,
    strategy: Strategy,
    objective: ToyObjective | None = None,
    space: SearchSpace | None = None,
    **options: Any,
) -> tuple[SearchResult, list[dict[str, Any]]]:
    run = Run(folder, space or load_space("default"), objective or ToyObjective(), BUDGET)
    result = search(run, strategy, Recipe(), **options)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return result, [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    "strategy", [Darts(), Darts(level="bilevel"), RandomSearch(), RandomSearch(trials=5), Fixed()]
)
def test_every_strategy_trains_for_the_same_number_of_steps(
    strategy: Strategy, tmp_path: Path
) -> None:
    class Counting(ToyObjective):
        batches = 0

        def backward(self, *args: Any) -> dict[str, float]:
            self.batches += 1
            return super().backward(*args)

    objective = Counting()
    _, events = go(tmp_path, replace(strategy, **_no_warmup(strategy)), objective, baseline="none")
    assert objective.batches == BUDGET.total
    without = Counting()
    go(tmp_path / "again", replace(strategy, **_no_warmup(strategy)), without, baseline="alone")
    assert without.batches == 2 * BUDGET.total
    assert events[0]["event"] == "start"
    assert events[-1]["event"] == "end"


def _no_warmup(strategy: Strategy) -> dict[str, float]:
    # In its warm-up the bilevel search passes one batch a step, and counts two.
    return {"alpha_warmup": 0.0} if isinstance(strategy, Darts) else {}


def test_training_goes_on_as_if_nothing_had_been_searched(tmp_path: Path) -> None:
    one = SearchSpace("one", Stack(2, Seq("linear", Choice("f", ["tanh"]), "layer_norm")))

    def losses(folder: Path, strategy: Strategy) -> list[dict[str, float]]:
        _, events = go(folder, strategy, space=one, baseline="none")
        return [event["losses"] for event in events if event["event"] == "step"]

    searched = losses(tmp_path / "searched", Darts())
    assert searched == losses(tmp_path / "fixed", Fixed())
    assert len(searched) == BUDGET.total


def test_columns_are_the_table(tmp_path: Path) -> None:
    result, events = go(tmp_path, Darts())
    assert list(result.columns) == [
        "untouched",
        "linear alone",
        "mixture",
        "argmax child",
        "trained child",
    ]
    scored = [event for event in events if event["event"] == "evaluation"]
    scores = {(event["name"], event["split"]): event["score"] for event in scored}
    for column, evaluation in result.columns.items():
        assert evaluation is not None
        assert evaluation.score == scores[column, "validation"]
    trained = result.columns["trained child"]
    assert trained is not None
    assert result.score == trained.score
    assert [key for key in scores if key[1] != "validation"] == [("trained child", "selection")]
    assert result.selected.score == scores["trained child", "selection"]


ONE = SearchSpace("one", Stack(2, Seq("linear", Choice("f", ["tanh"]))))


@pytest.mark.parametrize(
    ("strategy", "space"),
    [(Fixed(), ONE), (Fixed(), None), (RandomSearch(trials=1), None), (Darts(), ONE)],
)
def test_what_was_not_searched_has_no_argmax_child(
    strategy: Strategy, space: SearchSpace | None, tmp_path: Path
) -> None:
    result, events = go(tmp_path, strategy, space=space, baseline="none")
    shown = [label for label, column in result.columns.items() if column is not None]
    assert [label for label in shown if label != "mixture"] == ["untouched", "trained child"]
    assert "argmax child" not in {event.get("name") for event in events}


def test_nothing_to_score_is_an_empty_column(tmp_path: Path) -> None:
    class Compulsory(ToyObjective):
        optional = False

    result, _ = go(tmp_path, RandomSearch(trials=2), Compulsory())
    assert list(result.columns) == ["mixture", "argmax child", "trained child"]
    assert result.columns["mixture"] is None
    assert json.loads((tmp_path / "result.json").read_text())["columns"]["mixture"] is None


def test_files_of_a_run(tmp_path: Path) -> None:
    result, events = go(tmp_path, Darts())
    written = json.loads((tmp_path / "result.json").read_text())
    assert written["architecture"] == result.architecture.choices
    assert written["steps"] == {"search": 12, "total": 20}
    assert Architecture.load(tmp_path / "architecture.yaml") == result.architecture
    assert load_space(str(tmp_path / "space.yaml")) == load_space("default")
    assert [path.name for path in (tmp_path / "adapter").iterdir()] == ["head.safetensors"]
    kinds = Counter(event["event"] for event in events)
    assert kinds["step"] == 12 + 8 + 20
    assert kinds["architecture"] == kinds["end"] == kinds["start"] == 1


def test_warnings_reach_the_events_once_and_early(tmp_path: Path) -> None:
    class Warning(ToyObjective):
        asked = 0

        def warnings(self) -> list[str]:
            self.asked += 1
            return ["three prompts were cut", "the end is near"][: self.asked]

    _, events = go(tmp_path, RandomSearch(), Warning())
    kinds = [event.get("message", event["event"]) for event in events]
    assert kinds[:2] == ["start", "three prompts were cut"]
    assert kinds[-2:] == ["the end is near", "end"]
    assert kinds.count("three prompts were cut") == kinds.count("the end is near") == 1


def test_the_first_event_names_the_strategy(tmp_path: Path) -> None:
    class Nameless(RandomSearch):
        pass

    for strategy, name in ((RandomSearch(), "random"), (Nameless(), "Nameless")):
        _, events = go(tmp_path / name, strategy, baseline="none")
        assert events[0]["strategy"] == name


def test_dropout_under_alpha_is_warned_of(tmp_path: Path) -> None:
    _, events = go(tmp_path, Darts(), space=load_space("paper"))
    messages = [event["message"] for event in events if event["event"] == "warning"]
    assert sum("dropout" in message for message in messages) == 1


@pytest.mark.parametrize(
    ("strategy", "space", "said"),
    [
        (Darts(), SearchSpace("plain", Seq("linear", "relu")), "leaves no choice to alpha"),
        (Darts(relaxation="softmx"), load_space("default"), "unknown relaxation 'softmx'"),
        (RandomSearch(trials=13), load_space("default"), "between 1 and the 12 search steps"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_happens(
    strategy: Strategy, space: SearchSpace, said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        go(tmp_path, strategy, space=space)
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_a_run_goes_on_with_the_data_that_it_began_with(tmp_path: Path) -> None:
    def again(**data: str) -> SearchResult:
        objective = ToyObjective()
        objective.data = data
        space, resume = load_space("default"), (tmp_path / "checkpoint").exists()
        run = Run(tmp_path, space, objective, BUDGET, resume=resume)
        return search(run, Fixed(), Recipe(), baseline="none")

    first = again(mood="1", order="2")
    assert again(mood="1", order="2").columns == first.columns
    for changed in (
        {"mood": "1", "order": "3"},
        {"mood": "1"},
        {"mood": "1", "order": "2", "x": "4"},
    ):
        with pytest.raises(UserError, match=r"cannot go on: the data of '(order|x)' is not what"):
            again(**changed)


def test_a_run_goes_on_with_the_space_that_it_began_with(tmp_path: Path) -> None:
    def again(options: list[str]) -> SearchResult:
        space = SearchSpace("edited", Stack(2, Seq("linear", Choice("act", list(options)))))
        resume = (tmp_path / "checkpoint").exists()
        run = Run(tmp_path, space, ToyObjective(), BUDGET, resume=resume)
        return search(run, Fixed(), Recipe(), baseline="none")

    first = again(["tanh", "relu"])
    assert again(["tanh", "relu"]).columns == first.columns
    with pytest.raises(UserError, match="cannot go on: the space 'edited' is not what the run"):
        again(["relu", "tanh"])


# the space without a module


def test_without_a_module_the_problem_is_trained_alone(tmp_path: Path) -> None:
    """As the baseline of a search is: the same weights, step by step, and no architecture."""
    bare, events = go(tmp_path / "none", Fixed(), space=load_space("none"))
    assert list(bare.columns) == ["untouched", "trained child"]
    assert bare.architecture.choices == {}
    assert not {"architecture", "discretisation"} & {event["event"] for event in events}
    other, _ = go(tmp_path / "other", Fixed(), baseline="alone")
    assert bare.score == other.columns["linear alone"].score  # type: ignore[union-attr]
    assert SearchResult.read(tmp_path / "none").score == bare.score
    assert load_space(str(tmp_path / "none" / "space.yaml")).empty
    write_report(tmp_path / "none")
    assert not (tmp_path / "none" / "plots" / "architecture.png").exists()


def test_nothing_can_be_searched_without_a_module(tmp_path: Path) -> None:
    for strategy in (Darts(), RandomSearch(trials=2)):
        with pytest.raises(UserError, match=r"'none' leaves the strategy .* nothing to search"):
            go(tmp_path, strategy, space=load_space("none"))

    class Needs(ToyObjective):
        optional = False

    with pytest.raises(UserError, match="cannot be trained without a module"):
        go(tmp_path / "needs", Fixed(), Needs(), load_space("none"))


def test_the_name_of_that_space_is_reserved() -> None:
    with pytest.raises(UserError, match="is that of the space without a module"):
        SearchSpace("none", Seq("linear"))
