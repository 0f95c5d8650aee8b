"""Optuna's sampler over a space."""

from __future__ import annotations

import random
import subprocess
import sys

import optuna
import pytest

from prefixnas.multitrial.strategy import Scored
from prefixnas.space.architecture import Architecture
from prefixnas.space.nodes import Choice, Seq, Stack
from prefixnas.space.open_space import OpenSpace
from prefixnas.space.space import SearchSpace
from prefixnas.strategies.tpe import Tpe

SPACE = SearchSpace("s", Stack(3, Seq("linear", Choice("f", ["relu", "tanh", "gelu", "silu"]))))
NESTED = SearchSpace(
    "nested",
    Choice("outer", ["identity", Seq("linear", Choice("inner", ["relu", "tanh", "gelu", "silu"]))]),
)


def hits(architecture: Architecture) -> float:
    return float(sum(option == "tanh" for option in architecture.values()))


def test_it_proposes_what_optuna_suggests() -> None:
    """The same study, told and asked by hand in Optuna's own words."""
    rng = random.Random(3)
    rest = OpenSpace(SPACE)
    told = [Scored(item, hits(item)) for item in (rest.sample(rng) for _ in range(12))]
    seed = random.Random(7).getrandbits(32)
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(n_startup_trials=4, seed=seed)
    )
    distributions = {
        d.name: optuna.distributions.CategoricalDistribution(d.options) for d in SPACE.decisions
    }
    for trial in told:
        params = trial.architecture.choices
        study.add_trial(
            optuna.trial.create_trial(params=params, distributions=distributions, value=trial.score)
        )
    asked = study.ask(distributions)
    assert Tpe(startup=4).propose(rest, told, random.Random(7)).choices == asked.params


def test_it_learns_the_good_options() -> None:
    rest = OpenSpace(SPACE)
    last = [Tpe(trials=20).explore(rest, hits, seed)[10:] for seed in range(5)]
    found = [trial.score for tried in last for trial in tried]
    assert sum(found) / len(found) > 1.1  # 0.75 are expected of random architectures


def test_conditional_choices_and_settings() -> None:
    rest = OpenSpace(NESTED, {"outer": NESTED.decisions[0].options[1]})
    tried = Tpe(trials=9, startup=2).explore(rest, hits, 0)
    assert {trial.architecture for trial in tried} == set(rest.enumerate())
    tried = Tpe(trials=9, startup=2).explore(OpenSpace(NESTED), hits, 0)
    assert {trial.architecture for trial in tried} == set(NESTED.enumerate())


def test_an_infinitely_bad_score_is_told() -> None:
    tried = Tpe(trials=9, startup=2).explore(OpenSpace(SPACE), lambda _: float("nan"), 0)
    assert len(tried) == 9


def test_optuna_says_nothing_and_its_verbosity_stays(capfd: pytest.CaptureFixture[str]) -> None:
    before = optuna.logging.get_verbosity()
    Tpe(trials=4, startup=1).explore(OpenSpace(SPACE), hits, 0)
    assert optuna.logging.get_verbosity() == before
    assert capfd.readouterr() == ("", "")


def test_optuna_is_imported_when_it_is_needed() -> None:
    code = "import prefixnas.strategies.tpe, sys; assert 'optuna' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
