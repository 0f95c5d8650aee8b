"""What a differentiable search does where choices are set, or its process was killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prefixnas.base.errors import UserError
from prefixnas.network.supernet import Supernet
from prefixnas.run import events
from prefixnas.run.recipe import Recipe
from prefixnas.run.run import Budget, Run
from prefixnas.run.search import search
from prefixnas.space.decisions import DecidedBy
from prefixnas.space.nodes import Choice, Seq, Stack
from prefixnas.space.space import SearchSpace
from prefixnas.strategies.darts import Darts
from prefixnas.testing import ToyObjective

SPACE = SearchSpace("s", Stack(2, Seq("linear", Choice("f", ["relu", "tanh", "gelu"]))))


def test_a_space_whose_alphas_are_out_of_reach_is_refused() -> None:
    inner = Seq("linear", Choice("inner", ["tanh", "relu"]))
    space = SearchSpace("n", Choice("outer", ["linear", inner], "trial"))
    for settings in ({}, {"outer": "linear"}):
        with pytest.raises(UserError, match="leaves no choice to alpha"):
            Darts().check(space, settings, Budget(9, 0))
    Darts().check(space, {"outer": space.decisions[0].options[1]}, Budget(9, 0))


def test_what_is_set_reserves_no_tuning_steps() -> None:
    space = SearchSpace("p", Stack(6, Seq("linear", Choice("f", ["tanh", "relu"]))))
    settings = {f"layer{layer}/f": "tanh" for layer in range(5)}
    Darts(selection="perturbation", tune_steps=10).check(space, settings, Budget(10, 0))


def test_a_search_killed_while_it_tunes_goes_on_at_its_temperature(tmp_path: Path) -> None:
    class Killed(Exception):
        """Stands for the end of the process."""

    def kill(event: events.Event) -> None:
        if isinstance(event, events.Step) and event.phase.startswith("tune") and event.step == 1:
            raise Killed

    def tuned(name: str, **more: Any) -> float:
        run = Run(
            tmp_path / name, SPACE, ToyObjective(), Budget(24, 6), 1, checkpoint_every=3, **more
        )
        strategy = Darts(relaxation="gumbel", selection="perturbation", tune_steps=4)
        return search(run, strategy, Recipe(warmup=2), baseline="none").score

    whole = tuned("whole")
    with pytest.raises(Killed):
        tuned("killed", on_event=kill)
    assert tuned("killed", resume=True) == whole


@pytest.mark.parametrize("by", ["alpha", "trial"])
@pytest.mark.parametrize("outer", [None, 0, 1])
def test_a_space_says_what_its_supernet_mixes(by: DecidedBy, outer: int | None) -> None:
    inner = Seq("linear", Choice("inner", ["tanh", "relu"]))
    choice = Choice("outer", ["linear", inner], by)
    space = SearchSpace("n", Seq(choice, Choice("f", ["relu", "tanh"])))
    settings = {} if outer is None else {"outer": space.decisions[0].options[outer]}
    mixed = space.mixed(settings)
    assert mixed == Supernet(space, 8, settings=settings).decisions
    reached = outer == 1 or (outer is None and by == "alpha")
    assert any(decision.name.endswith("inner") for decision in mixed) == reached
