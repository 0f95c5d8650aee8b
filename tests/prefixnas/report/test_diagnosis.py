"""The analysis of a run: intervals, verdicts, and the places where it must not conclude."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import prefixnas.__main__
from prefixnas.base.estimates import estimate
from prefixnas.base.options import option
from prefixnas.launch.replay import difference
from prefixnas.report.diagnosis import coupling, diagnose, gap, rate
from prefixnas.report.diagnosis_view import figure
from prefixnas.run.events import Alpha, Event, Gap, Probe, Step
from prefixnas.run.objective import OBJECTIVES, ObjectiveConfig
from prefixnas.run.record import Record, read_record
from prefixnas.testing import ToyObjective
from tests.workbench import digest

pytestmark = pytest.mark.usefixtures("rendered")


def record(*events: Event, **config: Any) -> Record:
    return Record(Path("run"), events, {}, config, None)


def steps(squared: Any) -> list[Event]:
    return [
        Step.of("search", n, 1, {"task": 1.0}, 1e-3, None, math.sqrt(0.75 * s), math.sqrt(0.25 * s))
        for n, s in enumerate(squared)
    ]


def probe(change: list[float], move: float = 0.5, step: int = 0) -> Event:
    return Probe(
        step=step, passes=6, weight_move=move, alpha_move=0.5,
        alpha_gradient_norm=[1.0] * len(change), alpha_gradient_change=change,
        alpha_gradient_change_of_mean=0.0, gradient_change=change, squared_norm=4.0,
        squared_norm_of_mean=1.0,
    )  # fmt: skip


def ending(losses: list[list[float]], norms: list[list[float]], epsilon: float = 0.05) -> Event:
    return Gap(
        passes=2, positions=[0.0, 1.0], losses=losses, gradient_norms=norms,
        smoothness=[1.0] * len(losses), epsilon={"act": epsilon},
        distance=math.sqrt(2) * epsilon,
    )  # fmt: skip


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=20))
def test_intervals_are_those_of_student(values: list[float]) -> None:
    found = estimate(values)
    error = stats.sem(values)
    if error > 1e-6:
        low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), error)
        np.testing.assert_allclose([found.low, found.high], [low, high], rtol=1e-6, atol=1e-9)


def test_one_value_is_never_enough() -> None:
    assert estimate([2.0]).high == math.inf
    assert estimate([2.0]).noisy


@pytest.mark.parametrize(
    ("exponent", "verdict"), [(-0.5, "at least as fast"), (-1.0, "at least as fast"),
                              (-0.2, "slower"), (0.0, "slower"), (0.5, "grows")],
)  # fmt: skip
def test_a_rate_is_recognised(exponent: float, verdict: str) -> None:
    found = rate(record(*steps(3 * np.arange(1, 301.0) ** exponent)))
    assert found.exponent is not None
    np.testing.assert_allclose(
        found.exponent.mean, exponent, atol=0.01 if exponent == -0.5 else 0.08
    )
    assert verdict in found.verdict
    np.testing.assert_allclose(found.averages[2], 3 * np.mean(np.arange(1, 4.0) ** exponent))


def test_noise_and_short_runs_give_no_rate() -> None:
    noise = np.random.default_rng(0).lognormal(0, 2.5, 60) / np.sqrt(np.arange(1, 61))
    assert "too noisy" in rate(record(*steps(noise))).verdict
    assert "cannot be tested on 20 steps" in rate(record(*steps(np.ones(20)))).verdict
    assert "did not record" in rate(record()).verdict
    apart = record(*steps(np.ones(60)), level="bilevel")
    assert "not tested: level 'bilevel'" in rate(apart).verdict


def test_noise_of_the_batches_is_taken_from_the_probes() -> None:
    assert rate(record(*steps(np.ones(60)), probe([1.0, 1.0]))).noise == 0.75


def test_the_coupling_constant_is_change_over_step() -> None:
    found = coupling(record(probe([1.0, 3.0]), probe([2.0, 2.2], 1.0), probe([1.0, 1.2], 0.5)))
    assert found.constant is not None and found.constant.count == 3
    np.testing.assert_allclose(found.constant.mean, (4.0 + 2.1 + 2.2) / 3)
    assert found.largest == 6.0
    assert found.smoothness is not None
    np.testing.assert_allclose(found.smoothness.mean, (2 / 1.0 + 2.1 / 1.5 + 1.1 / 1.0) / 3)


@pytest.mark.parametrize(
    ("probes", "verdict"),
    [
        ([], "not measured"),
        ([probe([1.0, 1.1])], "too noisy"),
        ([probe([0.1, 0.1]), probe([9.0, 9.0])], "too noisy"),
        ([probe([1e-7, 1e-7])] * 5, "rounding"),
        ([probe([0.0, 0.0])] * 3, "did not move"),
        ([probe([1.0, 1.1]), probe([1.1, 1.0]), probe([1.05, 1.0])], "at least 2.2"),
    ],
)
def test_what_is_said_of_the_coupling(probes: list[Event], verdict: str) -> None:
    assert verdict in coupling(record(*probes)).verdict


@pytest.mark.parametrize(
    ("losses", "norms", "epsilon", "verdict"),
    [
        ([[1.0, 1.01], [1.0, 1.012], [1.0, 1.011]], [[1.0, 0.5]] * 3, 0.05, "holds"),
        ([[1.0, 1.6], [1.0, 1.61], [1.0, 1.62]], [[1.0, 0.5]] * 3, 0.05, "violated"),
        ([[1.0, 1.3], [1.0, 1.0], [1.0, 1.1]], [[1.0, 0.5]] * 3, 0.05, "too noisy"),
        ([[1.0, 1.0], [1.0, 1.0]], [[1.0, 0.5]] * 2, 0.0, "nothing to bound"),
        ([[1.0, 1.01], [1.0, 1.01]], [[1.0, 0.5]] * 2, 0.4, "premise is not met"),
    ],
)
def test_what_is_said_of_the_bound(
    losses: list[list[float]], norms: list[list[float]], epsilon: float, verdict: str
) -> None:
    found = gap(record(ending(losses, norms, epsilon)))
    assert verdict in found.verdict
    assert found.bound is not None
    np.testing.assert_allclose(found.bound, 2 * 1.0 * epsilon)


def test_without_probes_epsilon_is_that_of_the_last_record() -> None:
    found = gap(record(Alpha("search", 0, {"act": {"tanh": 0.7, "gelu": 0.3}})))
    np.testing.assert_allclose(found.total_epsilon, 0.3)
    assert "not measured" in found.verdict


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"update": "projected"}, "projected gradient"),
        ({"update": "logits"}, "alphas are logits"),
        ({"level": "bilevel"}, "'bilevel'"),
        ({"relaxation": "ste"}, "'ste'"),
        ({"entropy_weight": 0.1}, "entropy term"),
        ({"entropy_weight": 0.1, "entropy_scale": "gradient"}, "no one f"),
    ],
)
def test_caveats_are_those_of_the_run(config: dict[str, Any], said: str) -> None:
    other = {"update": "projected" if config.get("update") == "logits" else "logits"}
    assert any(said in caveat for caveat in diagnose(record(**config)).caveats)
    assert not any(said in caveat for caveat in diagnose(record(**other)).caveats)


def test_a_diagnosis_is_json_and_a_picture() -> None:
    events = [*steps(np.ones(60)), probe([1.0, 2.0]), ending([[1.0, 1.1]] * 2, [[1.0, 1.0]] * 2)]
    found = diagnose(record(*events))
    data = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert data["passes"] == 8
    assert data["coupling"]["constant"]["high"] is None, "the interval of one probe has no end"
    drawn = figure(found)
    assert drawn is not None and len(drawn.axes) == 3
    assert figure(diagnose(record())) is None


@dataclass(frozen=True)
class Toy(ObjectiveConfig):
    """The toy problem."""

    width: int = option(4, "width")

    def build(self, total_steps: int, seed: int) -> ToyObjective:
        return ToyObjective(self.width)


def test_a_run_without_probes_is_searched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(OBJECTIVES._registered, "toy-replay", Toy)
    monkeypatch.setattr("prefixnas.launch.start.write_report", lambda folder, space=None: folder)
    run = tmp_path / "run"
    argv = ["search", "--objective", "toy-replay", "--steps", "24", "--out", str(run)]
    assert prefixnas.__main__.main([*argv, "--relaxation", "gumbel"]) == 0
    before = {name: held for name, held in digest(run).items() if name != ".lock"}
    for _ in range(2):  # the second time, the second search is there already
        capsys.readouterr()
        argv = ["diagnose", str(run), "--replay", "3", "--batches", "2"]
        assert prefixnas.__main__.main(argv) == 0
        out, warned = capsys.readouterr()
        assert "L_theta_alpha, mean of the steps" in out and "bound 2 L epsilon" in out
        assert "away from the" not in warned, "the second search took the same steps"
    assert before.items() <= digest(run).items(), "the run itself stays as it is"
    assert difference(read_record(run), read_record(run / "replay")) == 0
    assert not read_record(run).of(Probe)
