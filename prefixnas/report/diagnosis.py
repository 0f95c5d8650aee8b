"""Checks the analysis of the PEML paper (section 7.2) on what a search recorded.

Three questions: does the average squared gradient norm fall like 1/sqrt(T) (theorem 7.1); how large
is the coupling constant L_theta_alpha (assumption 3); does the bound 2 L epsilon of proposition 7.2
hold for the gap in loss. Each answer comes with how sure it is, or says that it cannot be given.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefixnas.base.estimates import SURE, Estimate, estimate
from prefixnas.report.caveats import caveats
from prefixnas.run import events
from prefixnas.run.record import Record, final_probabilities

Floats = NDArray[np.float64]

BLOCKS = 12
RATE, SLACK = -0.5, 0.02


@dataclass(frozen=True)
class Rate:
    """Theorem 7.1: the squared gradient norm over the steps.

    Attributes:
        steps: Steps in which weights and alphas moved.
        squared: Squared norm of the gradient of both, per step.
        exponent: Slope of its logarithm over that of the step; 1/sqrt(T) has -0.5.
        noise: Share of the squared norm that is noise of the batches; None without probes.
        verdict: What follows.
    """

    steps: Floats
    squared: Floats
    exponent: Estimate | None
    noise: float | None
    verdict: str

    @property
    def averages(self) -> Floats:
        """The average over the first T steps, for every T."""
        averages: Floats = np.cumsum(self.squared) / np.arange(1, len(self.squared) + 1)
        return averages


def rate(record: Record) -> Rate:
    """Check theorem 7.1."""
    found = [
        (e.step, e.weight_gradient_norm**2 + e.alpha_gradient_norm**2)
        for e in record.of(events.Step)
        if e.weight_gradient_norm is not None and e.alpha_gradient_norm is not None
    ]
    if not found:
        verdict = "not tested: this run did not record the norms of its gradients"
        return Rate(np.empty(0), np.empty(0), None, None, verdict)
    steps, squared = np.array(found, dtype=np.float64).T
    probes = [e for e in record.of(events.Probe) if e.squared_norm_of_mean is not None]
    total = sum(e.squared_norm for e in probes)
    signal = sum(e.squared_norm_of_mean or 0.0 for e in probes)
    noise = 1.0 - signal / total if total else None
    exponent = _exponent(squared)
    if (level := record.config.get("level", "joint")) != "joint":
        verdict = f"not tested: level {level!r} has no common loss of weights and alphas"
    elif exponent is None:
        verdict = f"cannot be tested on {len(squared)} steps: at least {4 * BLOCKS} are needed"
    elif exponent.high <= RATE + SLACK:
        verdict = "falls at least as fast as 1/sqrt(T) within this run"
    elif exponent.low > 0:
        verdict = "grows over the run: it does not go like 1/sqrt(T)"
    elif exponent.low > RATE + SLACK:
        verdict = "falls slower than 1/sqrt(T), or not at all"
    else:
        verdict = "too noisy to conclude: both 1/sqrt(T) and slower agree with it"
    return Rate(steps, squared, exponent, noise, verdict)


def _exponent(squared: Floats) -> Estimate | None:
    """Return the slope of log squared norm over log step, of the means of equal blocks.

    If the average over T steps goes like T^-p, so does the single term. Means of blocks are
    nearly independent, which single steps are not.
    """
    from scipy.stats import linregress, t

    if len(squared) < 4 * BLOCKS:
        return None
    blocks = np.array_split(np.arange(len(squared)), BLOCKS)
    # The step that stands for a block is the one at which 1/sqrt(step) has its mean there, so
    # that a rate of exactly 1/sqrt(T) comes out as such.
    middle = np.log([float(((block + 1.0) ** RATE).mean()) ** (1 / RATE) for block in blocks])
    height = np.log([max(float(squared[block].mean()), 1e-300) for block in blocks])
    fit = linregress(middle, height)
    low, high = t.interval(SURE, BLOCKS - 2, fit.slope, fit.stderr)
    return Estimate(float(fit.slope), float(low), float(high), BLOCKS)


@dataclass(frozen=True)
class Coupling:
    """Assumption 3: how far a step of the weights moves the alphas' gradient.

    Attributes:
        steps: The probed steps.
        ratios: Per probe and batch, change of the gradient over length of the step.
        constant: The ratio, averaged over the batches of a probe, then over probes.
        largest: The largest ratio seen; a Lipschitz constant is not below it.
        staleness: The change relative to the gradient's norm.
        smoothness: The same ratio for all gradients and a step of both (L of assumption 1).
        verdict: What follows.
    """

    steps: list[int]
    ratios: list[list[float]]
    constant: Estimate | None
    largest: float | None
    staleness: Estimate | None
    smoothness: Estimate | None
    verdict: str


NO_PROBES = "not measured: this run has no probes (search with --probe-every N, or use --replay N)"


def coupling(record: Record) -> Coupling:
    """Estimate the constants of assumptions 3 and 1."""
    probes = [e for e in record.of(events.Probe) if e.weight_move > 0]
    if not probes:
        return Coupling([], [], None, None, None, None, NO_PROBES)
    ratios = [[c / e.weight_move for c in e.alpha_gradient_change] for e in probes]
    constant = estimate([_mean(row) for row in ratios])
    shares = [
        _mean(e.alpha_gradient_change) / norm
        for e in probes
        if (norm := _mean(e.alpha_gradient_norm)) > 0
    ]
    moves = [e.weight_move + e.alpha_move for e in probes]
    smooth = [_mean(e.gradient_change) / move for e, move in zip(probes, moves, strict=True)]
    largest = max(max(row) for row in ratios)
    if constant.mean == 0:
        verdict = "the alphas' gradient did not move at all: nothing is left to choose"
    elif max(shares, default=0.0) < 1e-4:
        verdict = "too noisy to conclude: the changes are no larger than rounding errors"
    elif constant.noisy:
        verdict = (
            f"too noisy to conclude: {len(probes)} probes differ too much; probe more often, or "
            "with more batches"
        )
    else:
        verdict = (
            "measured on the steps that were taken; the constant itself, a supremum, is at least "
            f"{largest:.3g}"
        )
    staleness = estimate(shares) if shares else None
    steps = [e.step for e in probes]
    return Coupling(steps, ratios, constant, largest, staleness, estimate(smooth), verdict)


@dataclass(frozen=True)
class Gap:
    """Proposition 7.2: the loss of the argmax child against that of the mixture.

    Attributes:
        epsilon: 1 - max p of each choice at the end of the search.
        positions: Places between mixture (0) and argmax child (1).
        losses: Per batch, the loss at each place.
        gap: Absolute difference of the losses of child and mixture, over batches.
        signed: The same with its sign; above 0 the child is worse.
        lipschitz: The largest gradient norm on the way, over batches: the L that eq. 27 needs.
        smoothness: How fast the gradient changes on the way: the L of assumption 1.
        bound: 2 L epsilon with `lipschitz` and the sum of all epsilons.
        bound_as_written: 2 L epsilon with `smoothness`.
        score_gap: Score of the mixture minus score of the argmax child, on the validation split.
        verdict: What follows.
    """

    epsilon: dict[str, float]
    positions: list[float]
    losses: list[list[float]]
    gap: Estimate | None
    signed: Estimate | None
    lipschitz: Estimate | None
    smoothness: Estimate | None
    bound: float | None
    bound_as_written: float | None
    score_gap: float | None
    verdict: str

    @property
    def total_epsilon(self) -> float:
        """The sum over the choices: half the distance of mixture and child in the 1-norm."""
        return sum(self.epsilon.values())


def gap(record: Record) -> Gap:
    """Check proposition 7.2."""
    epsilon = {
        name: 1.0 - max(options.values()) for name, options in final_probabilities(record).items()
    }
    found = record.of(events.Gap)
    if not found:
        return Gap(epsilon, [], [], None, None, None, None, None, None, record.gap(), NO_PROBES)
    event = found[-1]
    epsilon = dict(event.epsilon)
    differences = [losses[-1] - losses[0] for losses in event.losses]
    gaps = np.abs(differences)
    slopes = np.array([max(norms) for norms in event.gradient_norms], dtype=np.float64)
    lipschitz, smoothness = estimate(slopes), estimate(event.smoothness)
    reach = 2 * sum(epsilon.values())
    return Gap(
        epsilon=epsilon,
        positions=[*event.positions],
        losses=[[*losses] for losses in event.losses],
        gap=estimate(gaps),
        signed=estimate(differences),
        lipschitz=lipschitz,
        smoothness=smoothness,
        bound=reach * lipschitz.mean,
        bound_as_written=reach * smoothness.mean,
        score_gap=record.gap(),
        verdict=_holds(gaps, reach * slopes, epsilon),
    )


def _holds(gaps: Floats, bounds: Floats, epsilon: Mapping[str, float]) -> str:
    """Compare each batch's gap with its own bound."""
    if not bounds.any():
        return "nothing to bound: every choice has one candidate left, epsilon is 0"
    margin = estimate(bounds - gaps)
    if margin.high < 0:
        verdict = "violated: the loss bends more between the measured places than at them"
    elif margin.low <= 0:
        verdict = f"too noisy to conclude: over {margin.count} batches bound - gap is {margin}"
    else:
        times = bounds.mean() / gaps.mean() if gaps.mean() > 0 else math.inf
        verdict = f"holds: the bound is {times:.3g} times the gap"
    peaked = sum(value <= 0.1 for value in epsilon.values())
    if peaked < len(epsilon):
        verdict += (
            f"; but epsilon is small (at most 0.1) in {peaked} of {len(epsilon)} choices only, "
            "so that its premise is not met"
        )
    return verdict


@dataclass(frozen=True)
class Diagnosis:
    """All answers about one run."""

    name: str
    rate: Rate
    coupling: Coupling
    gap: Gap
    caveats: list[str]
    passes: int

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        data: dict[str, Any] = _plain(asdict(self))
        data["gap"]["total_epsilon"] = self.gap.total_epsilon
        return data


def diagnose(record: Record) -> Diagnosis:
    """Answer all questions about a differentiable run."""
    probed: list[events.Probe | events.Gap] = [*record.of(events.Probe), *record.of(events.Gap)]
    passes = sum(event.passes for event in probed)
    return Diagnosis(
        record.name, rate(record), coupling(record), gap(record), caveats(record), passes
    )


def _plain(value: Any) -> Any:
    """Return a JSON value: lists for arrays, None for ends of intervals that are infinite."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
