"""A diagnosis as text and as a plot."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Group, RenderableType
from rich.text import Text

from prefixnas.report.diagnosis import Diagnosis
from prefixnas.report.grid import facts
from prefixnas.report.plots.style import FAINT, INK, hue, new_panels, spreads_far, tidy


def text(diagnosis: Diagnosis) -> Group:
    """Return what `prefixnas diagnose` prints."""
    rate, coupling, gap = diagnosis.rate, diagnosis.coupling, diagnosis.gap
    averages = rate.averages
    parts: list[RenderableType] = [
        Text(diagnosis.name, "bold"),
        Text("intervals are of 95 %, over batches or probes\n", "dim"),
        *_part(
            "Theorem 7.1: average squared gradient norm against 1/sqrt(T)",
            {
                "steps T": len(rate.steps) or None,
                "average over all T": averages[-1] if len(averages) else None,
                "exponent (1/sqrt(T): -0.5)": rate.exponent,
                "share of batch noise in it": None if rate.noise is None else f"{rate.noise:.0%}",
            },
            rate.verdict,
        ),
        *_part(
            "Assumption 3: coupling of weights and alphas",
            {
                "L_theta_alpha, mean of the steps": coupling.constant,
                "largest seen": coupling.largest,
                "change of the gradient by a step, relative": coupling.staleness,
                "L of assumption 1, mean of the steps": coupling.smoothness,
            },
            coupling.verdict,
        ),
        *_part(
            "Proposition 7.2: gap between mixture and argmax child",
            {
                "epsilon, summed over choices": gap.total_epsilon,
                "epsilon, largest": max(gap.epsilon.values(), default=0.0),
                "L: Lipschitz constant of the loss": gap.lipschitz,
                "bound 2 L epsilon": gap.bound,
                "measured gap in loss": gap.gap,
                "with its sign (child - mixture)": gap.signed,
                "L of assumption 1": gap.smoothness,
                "2 L epsilon with that L": gap.bound_as_written,
                "gap in score (mixture - child)": (
                    None if gap.score_gap is None else f"{gap.score_gap:+.4f}"
                ),
            },
            gap.verdict,
        ),
        Text("Where the argument does not hold, or is not tested, here", "bold"),
        *(Text(f"- {caveat}") for caveat in diagnosis.caveats),
    ]
    if diagnosis.passes:
        parts.append(Text(f"\nprobes passed {diagnosis.passes} batches beyond the budget", "dim"))
    return Group(*parts)


def _part(title: str, known: Mapping[str, object], verdict: str) -> list[RenderableType]:
    """Return a question, what is known about it (numbers with three digits), and the verdict."""
    shown = [
        (f"  {label}", f"{fact:.3g}" if isinstance(fact, float) else str(fact))
        for label, fact in known.items()
        if fact is not None
    ]
    return [Text(title, "bold"), facts(shown), Text(f"  {verdict}\n")]


def figure(diagnosis: Diagnosis) -> Figure | None:
    """Draw a panel for each question that has an answer."""
    drawings = [
        draw
        for draw, there in (
            (_draw_rate, len(diagnosis.rate.steps) > 1),
            (_draw_coupling, bool(diagnosis.coupling.steps)),
            (_draw_gap, bool(diagnosis.gap.losses)),
        )
        if there
    ]
    if not drawings:
        return None
    count = len(drawings)
    drawn, panels = new_panels(count, count, 3.2, width=3.6 * count)
    for axes, draw in zip(panels, drawings, strict=True):
        draw(axes, diagnosis)
        axes.legend(fontsize=7, frameon=False)
    return drawn


def _draw_rate(axes: Axes, diagnosis: Diagnosis) -> None:
    rate = diagnosis.rate
    counts = np.arange(1, len(rate.steps) + 1)
    axes.plot(counts, rate.squared, ".", ms=2.5, color=hue(0), alpha=0.4, label="single steps")
    axes.plot(counts, rate.averages, color=hue(0), lw=1.8, label="average over T")
    middle = len(counts) // 2
    axes.plot(counts, rate.averages[middle] * np.sqrt(counts[middle] / counts), "--", color=INK,
              lw=1.2, label="like 1/sqrt(T)")  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    tidy(axes, "squared gradient norm", x="steps T of weights and alphas")


def _draw_coupling(axes: Axes, diagnosis: Diagnosis) -> None:
    coupling = diagnosis.coupling
    for index, (step, row) in enumerate(zip(coupling.steps, coupling.ratios, strict=True)):
        axes.plot([step] * len(row), row, ".", color=hue(1), alpha=0.5,
                  label=None if index else "single batches")  # fmt: skip
    means = [sum(row) / len(row) for row in coupling.ratios]
    axes.plot(coupling.steps, means, color=hue(1), lw=1.6, label="mean")
    assert coupling.constant is not None
    axes.axhline(coupling.constant.mean, color=INK, lw=1.0, ls="--", label="mean of all probes")
    if coupling.constant.count > 1:
        low = max(coupling.constant.low, 0.0)
        axes.axhspan(low, coupling.constant.high, color=FAINT, alpha=0.2, lw=0)
    if spreads_far(np.concatenate(coupling.ratios)):
        axes.set_yscale("log")
    tidy(axes, "coupling L_theta_alpha", x="step")


def _draw_gap(axes: Axes, diagnosis: Diagnosis) -> None:
    gap = diagnosis.gap
    for index, losses in enumerate(gap.losses):
        axes.plot(gap.positions, [loss - losses[0] for loss in losses], "o-", ms=2.5, lw=0.9,
                  color=hue(2), alpha=0.6, label=None if index else "single batches")  # fmt: skip
    assert gap.bound is not None
    reach = np.array(gap.positions) * gap.bound
    axes.plot(gap.positions, reach, "--", color=INK, lw=1.2, label="2 L epsilon")
    axes.plot(gap.positions, -reach, "--", color=INK, lw=1.2)
    axes.set_xticks([0, 1], ["mixture", "argmax child"])
    tidy(axes, "loss on the way, less the mixture's")
