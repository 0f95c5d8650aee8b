"""The tabular benchmark: scores are looked up, and a supernet's is the expected one."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prefixnas.__main__ import main
from prefixnas.base.errors import UserError
from prefixnas.network.supernet import Supernet, build_child
from prefixnas.space.architecture import Architecture
from prefixnas.space.loading import load_space
from prefixnas.space.nodes import Choice, Seq
from prefixnas.space.space import SearchSpace
from prefixnas.testing import ObjectiveCheck
from prefixnas.testing.objectives import PROMISES
from prefixnas.testing.tabular.objective import TabularObjective
from prefixnas.testing.tabular.regret import spread
from prefixnas.testing.tabular.table import shipped_table

SPACE = load_space("tabular")
ARCHITECTURES = list(SPACE.enumerate())


def test_table_holds_every_architecture_of_its_space_with_three_seeds() -> None:
    table = shipped_table()
    assert list(table.architectures) == ARCHITECTURES
    assert len(table.seeds) == 3
    for architecture in ARCHITECTURES:
        for split in ("selection", "validation"):
            of_seeds = [table.score(architecture, split, seed) for seed in table.seeds]
            assert len(set(of_seeds)) == 3
            mean = sum(of_seeds) / 3
            assert table.score(architecture, split) == pytest.approx(mean)


def test_longer_training_scores_better_and_architectures_differ_more_than_seeds() -> None:
    table = shipped_table()
    for architecture in ARCHITECTURES:
        scores = [table.score(architecture, "validation", steps=steps) for steps in table.steps]
        assert scores == sorted(scores)
    for split in ("selection", "validation"):
        found = spread(table, split)
        assert found.architectures > 3 * found.seeds > 0


@pytest.mark.parametrize("seed", [0, 1, 5])
def test_child_is_looked_up(seed: int) -> None:
    table, architecture = shipped_table(), ARCHITECTURES[seed + 20]
    objective = TabularObjective()
    objective.reset(build_child(SPACE, architecture, objective.width), seed)
    one, following = (table.score(architecture, "selection", (seed + k) % 3) for k in (0, 1))
    assert objective.evaluate("selection").score == pytest.approx(one)
    assert objective.backward("selection") == {"table": pytest.approx(-one)}
    assert objective.backward("train") == {"table": pytest.approx(-following)}
    mean = table.score(architecture, "validation")
    assert objective.evaluate("validation").score == pytest.approx(mean)


def test_shorter_trainings_are_looked_up_by_their_steps() -> None:
    table, architecture = shipped_table(), ARCHITECTURES[7]
    objective = TabularObjective(steps=20)
    objective.reset(build_child(SPACE, architecture, objective.width), 0)
    expected = table.score(architecture, "validation", steps=20)
    assert objective.evaluate("validation").score == pytest.approx(expected)
    with pytest.raises(UserError, match="trainings of 20, 40, 60 steps, not 30"):
        TabularObjective(steps=30)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=12, max_size=12), st.booleans())
def test_supernet_has_the_expected_loss_of_a_drawn_child(values: list[float], hold: bool) -> None:
    """By hand, in float64: the mean of the table under the product of the softmaxes."""
    held = {"layer1/norm": "layer_norm"} if hold else {}
    net = Supernet(SPACE, 4, settings=held)
    numbers = iter(values)
    probability: dict[tuple[str, str], float] = {}
    for decision, alpha in zip(net.decisions, net.alphas, strict=True):
        mine = [next(numbers) for _ in decision.options]
        alpha.data = torch.tensor(mine)
        total = sum(map(math.exp, mine))
        for option, value in zip(decision.options, mine, strict=True):
            probability[decision.name, option] = math.exp(value) / total
    for option in ("identity", "layer_norm") if hold else ():
        probability["layer1/norm", option] = float(option == "layer_norm")

    losses = {a: -shipped_table().score(a, "selection", 1) for a in ARCHITECTURES}

    def expected(given: dict[str, str]) -> float:
        """The expected loss of children that have the given options."""
        inside = [a for a in ARCHITECTURES if all(a[name] == o for name, o in given.items())]
        rest = [name for name in ARCHITECTURES[0] if name not in given]
        shares = [math.prod(probability[name, a[name]] for name in rest) for a in inside]
        return sum(share * losses[a] for share, a in zip(shares, inside, strict=True))

    objective = TabularObjective()
    objective.reset(net, 0)
    assert objective.backward("train")["table"] == pytest.approx(expected({}), rel=1e-5)
    for decision, alpha in zip(net.decisions, net.alphas, strict=True):
        assert alpha.grad is not None
        for option, gradient in zip(decision.options, alpha.grad.tolist(), strict=True):
            gain = expected({decision.name: option}) - expected({})
            by_hand = probability[decision.name, option] * gain
            assert gradient == pytest.approx(by_hand, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("promise", [name for name in PROMISES if name != "gradients"])
def test_objective_keeps_the_contract(promise: str) -> None:
    """All but gradients of weights, which play no part here."""
    getattr(ObjectiveCheck(TabularObjective, space=SPACE), promise)()


def test_unknown_architecture_is_refused() -> None:
    stranger = Architecture({**ARCHITECTURES[0], "layer0/activation": "gelu"}, "tabular")
    with pytest.raises(UserError, match=r"does not hold .*gelu"):
        shipped_table().score(stranger, "selection")


def test_other_space_is_refused_even_under_the_same_name() -> None:
    other = SearchSpace("tabular", Seq("linear", Choice("activation", ["tanh", "gelu"])))
    with pytest.raises(UserError, match="holds the architectures of space 'tabular' alone"):
        TabularObjective().check_space(other)


def test_command_line_searches_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["search", "--objective", "tabular", "--strategy", "evolution", "--trials", "8"]
    assert main([*command, "--space", "default", "--out", "wrong"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--space tabular" in error
    assert not Path("wrong").exists()
    assert main([*command, "--space", "tabular", "--steps", "20", "--out", "run"]) == 0
    result = json.loads(Path("run/result.json").read_text())
    found = Architecture(result["architecture"], "tabular")
    score = result["columns"]["trained child"]["score"]
    assert score == pytest.approx(shipped_table().score(found, "validation"))


def test_benchmark_is_never_the_default_problem(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "--dry-run"]) == 0
    assert "objective: language-model" in capsys.readouterr().out
