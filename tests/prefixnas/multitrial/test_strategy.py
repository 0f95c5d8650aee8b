"""What every strategy that tries architectures one after the other promises."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from prefixnas import UserError
from prefixnas.multitrial.strategy import Scored, TrialStrategy
from prefixnas.report.plots.trials import trial_figure, tried
from prefixnas.report.run_page import render
from prefixnas.run.recipe import Recipe
from prefixnas.run.record import read_record
from prefixnas.run.run import Budget, Run
from prefixnas.space.architecture import Architecture
from prefixnas.space.nodes import Choice, Seq, Stack
from prefixnas.space.open_space import OpenSpace
from prefixnas.space.space import SearchSpace
from prefixnas.strategies.random import RandomSearch
from prefixnas.testing import ToyObjective

SPACE = SearchSpace("s", Stack(2, Seq("linear", Choice("f", ["relu", "tanh", "zero"]))))
MIXED = SearchSpace(
    "mixed",
    Seq(
        "linear",
        Choice("f", ["relu", "tanh", "gelu"]),
        Choice("end", ["identity", "layer_norm"], "trial"),
    ),
)


@dataclass(frozen=True)
class First(TrialStrategy):
    """Proposes the same architecture again and again."""

    def propose(
        self, space: OpenSpace, history: Sequence[Scored], rng: random.Random
    ) -> Architecture:
        return next(space.enumerate())


def make(folder: Path, search: int = 12, space: SearchSpace = SPACE, **more: Any) -> Run:
    return Run(folder, space, ToyObjective(), Budget(search, 5), **more)


def events(run: Run, kind: str) -> list[dict[str, Any]]:
    lines = (run.folder / "metrics.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def test_every_child_gets_an_equal_share_from_the_same_start(tmp_path: Path) -> None:
    run = make(tmp_path, search=13)
    RandomSearch(trials=3).search(run, Recipe())
    steps = Counter(event["phase"] for event in events(run, "step"))
    assert steps == {"trial 0": 4, "trial 1": 4, "trial 2": 4}
    assert run.spent == 12


@pytest.mark.parametrize("weights", ["train", "one-shot"])
def test_the_best_on_the_selection_split_wins_with_its_weights(
    weights: Any, tmp_path: Path
) -> None:
    run = make(tmp_path, search=40)
    found = RandomSearch(trials=4, weights=weights).search(run, Recipe())
    looks = events(run, "evaluation")
    assert {look["split"] for look in looks} == {"selection"}
    best = max(looks, key=lambda look: look["score"])
    choices = {event["name"]: event["choices"] for event in events(run, "trial")}
    assert found.architecture.choices == choices[best["name"]]
    assert run.objective.evaluate("selection").score == best["score"]


@pytest.mark.parametrize(("weights", "steps"), [("train", {4}), ("one-shot", set(range(1, 13)))])
def test_the_winner_goes_on_with_the_moments_of_its_weights(
    weights: Any, steps: set[int], tmp_path: Path
) -> None:
    run = make(tmp_path)
    found = RandomSearch(trials=3, weights=weights).search(run, Recipe())
    assert found.optimizer is not None
    moments = found.optimizer.inner.state
    for group in run.objective.parameters():
        for weight in group["params"]:
            assert int(moments[weight]["step"]) in steps
            assert moments[weight]["exp_avg"].any()


def test_one_shot_trains_one_supernet_for_the_search_budget(tmp_path: Path) -> None:
    run = make(tmp_path, search=13)
    RandomSearch(trials=5, weights="one-shot").search(run, Recipe())
    assert Counter(event["phase"] for event in events(run, "step")) == {"supernet": 13}
    assert run.spent == 13
    assert len(events(run, "evaluation")) == 5


def test_one_shot_trains_every_path_about_as_often(tmp_path: Path) -> None:
    taken: Counter[str] = Counter()

    class Counting(ToyObjective):
        def backward(self, split: Any = "train") -> dict[str, float]:
            losses = super().backward(split)
            for name, parameter in self._module.named_parameters():  # type: ignore[union-attr]
                if "alpha" not in name and parameter.grad is not None and parameter.grad.any():
                    taken[name] += 1
            return losses

    space = SearchSpace("own", Choice("f", [Seq("linear", "tanh"), Seq("linear", "gelu")]))
    run = Run(tmp_path, space, Counting(), Budget(200, 5))
    RandomSearch(trials=2, weights="one-shot").search(run, Recipe())
    weights = [count for name, count in taken.items() if name.endswith("weight")]
    assert len(weights) == 2
    assert sum(weights) == 200  # one path in each step
    assert min(weights) > 70


def test_one_shot_holds_choices_by_trial_and_says_so(tmp_path: Path) -> None:
    run = make(tmp_path, space=MIXED)
    RandomSearch(trials=3, weights="one-shot").search(run, Recipe())
    assert {event["choices"]["end"] for event in events(run, "trial")} == {"identity"}
    assert ["end=identity" in event["message"] for event in events(run, "warning")] == [True]
    run = make(tmp_path, space=MIXED, settings={"end": "layer_norm"})
    RandomSearch(trials=3, weights="one-shot").search(run, Recipe())
    assert {event["choices"]["end"] for event in events(run, "trial")} == {"layer_norm"}
    assert events(run, "warning") == []


def test_repeats_are_told_and_never_evaluated_again() -> None:
    lengths, told = [], []

    @dataclass(frozen=True)
    class Watched(First):
        def propose(
            self, space: OpenSpace, history: Sequence[Scored], rng: random.Random
        ) -> Architecture:
            lengths.append(len(history))
            told.append(tuple(history))
            return super().propose(space, history, rng)

    asked: list[Architecture] = []

    def score(architecture: Architecture) -> float:
        asked.append(architecture)
        return float(len(asked) - 1)

    tried = Watched(trials=4).explore(OpenSpace(SPACE), score, 0)
    assert [trial.architecture for trial in tried] == asked
    assert len(set(asked)) == 4
    assert lengths == [0, *range(1, 21), *range(22, 42), *range(43, 63)]
    first = Scored(next(SPACE.enumerate()), 0.0)
    assert told[-1][:20] == (first,) * 20
    assert told[-1][20:22] == (first, Scored(asked[1], 1.0))


@pytest.mark.parametrize("strategy", [RandomSearch(trials=20), First(trials=20)])
def test_an_exhausted_space_ends_cleanly(strategy: TrialStrategy, tmp_path: Path) -> None:
    run = make(tmp_path, search=27)
    strategy.search(run, Recipe())
    tried = [tuple(event["choices"].items()) for event in events(run, "trial")]
    assert len(tried) == len(set(tried)) == SPACE.size
    assert run.spent == 27  # nine architectures share all of it


def test_what_is_set_stays_set(tmp_path: Path) -> None:
    run = make(tmp_path, settings={"layer0/f": "zero"})
    RandomSearch(trials=9).search(run, Recipe())
    tried = [event["choices"] for event in events(run, "trial")]
    assert [choices["layer0/f"] for choices in tried] == ["zero"] * 3


def test_a_score_that_is_no_number_is_the_worst() -> None:
    scores = iter([-1e9, math.nan, -1e9])
    tried = RandomSearch(trials=3).explore(OpenSpace(SPACE), lambda _: next(scores), 0)
    assert [trial.score for trial in tried] == [-1e9, -math.inf, -1e9]


def test_a_noted_proposal_is_not_made_again(tmp_path: Path) -> None:
    first = RandomSearch(trials=6).search(make(tmp_path), Recipe())
    resumed = First(trials=6).search(make(tmp_path, resume=True), Recipe())
    assert resumed.architecture == first.architecture


@pytest.mark.parametrize("trials", [0, 13])
def test_a_number_of_trials_that_cannot_be(trials: int, tmp_path: Path) -> None:
    run = make(tmp_path)
    with pytest.raises(UserError, match=f"trials.*not {trials}"):
        RandomSearch(trials=trials).check(run.space, run.settings, run.budget)


def test_one_shot_refuses_what_a_supernet_cannot_hold() -> None:
    by_trial = SearchSpace("t", Seq("linear", Choice("f", ["relu", "tanh"], "trial")))
    one_shot = RandomSearch(trials=4, weights="one-shot")
    with pytest.raises(UserError, match="decided by trial need weights 'train'"):
        one_shot.check(by_trial, {}, Budget(10, 5))
    with pytest.raises(UserError, match="one-shot needs search steps"):
        one_shot.check(SPACE, {}, Budget(0, 5))
    one_shot.check(SPACE, {}, Budget(1, 5))  # trials are not trained, so may be more than steps
    replace(one_shot, weights="train").check(by_trial, {}, Budget(10, 5))


def test_the_report_shows_what_was_tried(tmp_path: Path) -> None:
    run = make(tmp_path, settings={"layer1/f": "tanh"})
    RandomSearch(trials=3).search(run, Recipe())
    record = read_record(tmp_path)
    scores = [event["score"] for event in events(run, "evaluation")]
    assert [trial.score for trial in tried(record)] == scores
    figure = trial_figure(record)
    assert figure is not None
    best, points = (line.get_ydata() for line in figure.axes[0].lines)
    assert list(points) == scores
    assert list(best) == [max(scores[: number + 1]) for number in range(3)]
    page = render(record, {})
    table = page[page.index("3 architectures tried") :].partition("</details>")[0]
    assert "layer0/f" in table and "layer1/f" not in table  # the latter is the same in all
    assert all(f"{score:.4f}" in table for score in scores)


def test_a_run_without_trials_has_no_such_figure(tmp_path: Path) -> None:
    run = make(tmp_path)
    RandomSearch().search(run, Recipe())
    record = read_record(tmp_path)
    assert trial_figure(record) is None
    assert "tried" not in render(record, {})


@dataclass(frozen=True)
class Started(First):
    """Says that its first three proposals are random."""

    def random_start(self) -> int:
        return 3


@pytest.mark.parametrize(("trials", "warned"), [(2, True), (3, True), (4, False)])
def test_trials_that_are_all_random_are_said_to_be(
    trials: int, warned: bool, tmp_path: Path
) -> None:
    run = make(tmp_path)
    Started(trials=trials).search(run, Recipe(warmup=1))
    messages = [event["message"] for event in events(run, "warning")]
    assert messages == (
        [
            f"all {trials} trials belong to the random start of 3, so this is random search; "
            "raise trials"
        ]
        if warned
        else []
    )
