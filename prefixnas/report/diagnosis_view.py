"""A diagnosis as text and as a plot."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from prefixnas.base.estimates import Estimate
from prefixnas.report.diagnosis import Diagnosis
from prefixnas.report.plots.style import FAINT, HUES, INK


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
                "steps T": str(len(rate.steps)) if len(rate.steps) else None,
                "average over all T": f"{averages[-1]:.3g}" if len(averages) else None,
                "exponent (1/sqrt(T): -0.5)": _said(rate.exponent),
                "share of batch noise in it": _share(rate.noise),
            },
            rate.verdict,
        ),
        *_part(
            "Assumption 3: coupling of weights and alphas",
            {
                "L_theta_alpha, mean of the steps": _said(coupling.constant),
                "largest seen": None if coupling.largest is None else f"{coupling.largest:.3g}",
                "change of the gradient by a step, relative": _said(coupling.staleness),
                "L of assumption 1, mean of the steps": _said(coupling.smoothness),
            },
            coupling.verdict,
        ),
        *_part(
            "Proposition 7.2: gap between mixture and argmax child",
            {
                "epsilon, summed over choices": f"{gap.total_epsilon:.3g}",
                "epsilon, largest": f"{max(gap.epsilon.values(), default=0.0):.3g}",
                "L: Lipschitz constant of the loss": _said(gap.lipschitz),
                "bound 2 L epsilon": None if gap.bound is None else f"{gap.bound:.3g}",
                "measured gap in loss": _said(gap.gap),
                "with its sign (child - mixture)": _said(gap.signed),
                "L of assumption 1": _said(gap.smoothness),
                "2 L epsilon with that L": (
                    None if gap.bound_as_written is None else f"{gap.bound_as_written:.3g}"
                ),
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


def _part(title: str, facts: dict[str, str | None], verdict: str) -> list[RenderableType]:
    grid = Table.grid(padding=(0, 2))
    for label, fact in facts.items():
        if fact is not None:
            grid.add_row(Text(f"  {label}", "dim"), Text(fact))
    return [Text(title, "bold"), grid, Text(f"  {verdict}\n")]


def _said(value: Estimate | None) -> str | None:
    return None if value is None else str(value)


def _share(value: float | None) -> str | None:
    return None if value is None else f"{value:.0%}"


def figure(diagnosis: Diagnosis) -> Figure | None:
    """Draw a panel for each question that has an answer."""
    panels = [
        draw
        for draw, there in (
            (_draw_rate, len(diagnosis.rate.steps) > 1),
            (_draw_coupling, bool(diagnosis.coupling.steps)),
            (_draw_gap, bool(diagnosis.gap.losses)),
        )
        if there
    ]
    if not panels:
        return None
    drawn = Figure((3.6 * len(panels), 3.2), layout="constrained", facecolor="white")
    for index, draw in enumerate(panels):
        axes = drawn.add_subplot(1, len(panels), 1 + index)
        draw(axes, diagnosis)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e3e5e8", lw=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=8, which="both")
        axes.legend(fontsize=7, frameon=False)
    return drawn


def _draw_rate(axes: Axes, diagnosis: Diagnosis) -> None:
    rate = diagnosis.rate
    counts = np.arange(1, len(rate.steps) + 1)
    axes.plot(counts, rate.squared, ".", ms=2.5, color=HUES[0], alpha=0.4, label="single steps")
    axes.plot(counts, rate.averages, color=HUES[0], lw=1.8, label="average over T")
    middle = len(counts) // 2
    axes.plot(counts, rate.averages[middle] * np.sqrt(counts[middle] / counts), "--", color=INK,
              lw=1.2, label="like 1/sqrt(T)")  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("steps T of weights and alphas", fontsize=8)
    axes.set_title("squared gradient norm", fontsize=9, loc="left")


def _draw_coupling(axes: Axes, diagnosis: Diagnosis) -> None:
    coupling = diagnosis.coupling
    for index, (step, row) in enumerate(zip(coupling.steps, coupling.ratios, strict=True)):
        axes.plot([step] * len(row), row, ".", color=HUES[1], alpha=0.5,
                  label=None if index else "single batches")  # fmt: skip
    means = [sum(row) / len(row) for row in coupling.ratios]
    axes.plot(coupling.steps, means, color=HUES[1], lw=1.6, label="mean")
    assert coupling.constant is not None
    axes.axhline(coupling.constant.mean, color=INK, lw=1.0, ls="--", label="mean of all probes")
    if coupling.constant.count > 1:
        low = max(coupling.constant.low, 0.0)
        axes.axhspan(low, coupling.constant.high, color=FAINT, alpha=0.2, lw=0)
    values = [value for row in coupling.ratios for value in row]
    if min(values) > 0 and max(values) > 20 * min(values):
        axes.set_yscale("log")
    axes.set_xlabel("step", fontsize=8)
    axes.set_title("coupling L_theta_alpha", fontsize=9, loc="left")


def _draw_gap(axes: Axes, diagnosis: Diagnosis) -> None:
    gap = diagnosis.gap
    for index, losses in enumerate(gap.losses):
        axes.plot(gap.positions, [loss - losses[0] for loss in losses], "o-", ms=2.5, lw=0.9,
                  color=HUES[2], alpha=0.6, label=None if index else "single batches")  # fmt: skip
    assert gap.bound is not None
    reach = np.array(gap.positions) * gap.bound
    axes.plot(gap.positions, reach, "--", color=INK, lw=1.2, label="2 L epsilon")
    axes.plot(gap.positions, -reach, "--", color=INK, lw=1.2)
    axes.set_xticks([0, 1], ["mixture", "argmax child"])
    axes.set_title("loss on the way, less the mixture's", fontsize=9, loc="left")
