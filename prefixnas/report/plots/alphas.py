"""Plots of what happened to the alphas of a differentiable search, drawn from its events."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cbook import boxplot_stats
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from prefixnas.report.plots.heatmap import short_labels
from prefixnas.report.plots.style import (
    FAINT,
    INK,
    add_legend,
    dash,
    hue,
    new_figure,
    new_panels,
    plain,
    scale,
    spreads_far,
    tidy,
)
from prefixnas.run import events
from prefixnas.run.evaluation import ARGMAX, MIXTURE, TRAINED
from prefixnas.run.record import Record, alpha_matrix, decisions
from prefixnas.space.architecture import decision_key

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Norms:
    """Norms of the alphas' gradient in one search.

    Attributes:
        steps: The steps in which alphas moved.
        values: The norms there.
    """

    steps: Floats
    values: Floats

    def __len__(self) -> int:
        return len(self.steps)


def alpha_gradient_norms(record: Record) -> Norms:
    """Return the recorded norms: of every step, or of every recorded one in older runs."""
    steps = [(e.step, e.alpha_gradient_norm) for e in record.of(events.Step)]
    alphas = [(e.step, e.gradient_norm) for e in record.of(events.Alpha)]
    for source in (steps, alphas):
        found = [(step, norm) for step, norm in source if norm is not None]
        if found:
            return Norms(*np.array(found, dtype=np.float64).T)
    return Norms(np.empty(0), np.empty(0))


def trajectory_figure(record: Record) -> Figure | None:
    """Draw alpha itself over the steps: a panel per decision, a line per option."""
    found = [event for event in record.of(events.Alpha) if event.alphas]
    if not found:
        return None
    names = list(found[0].alphas)
    figure, panels = _panels(len(names), len({decision_key(name) for name in names}))
    taken: Mapping[str, str] = record.architecture or {}
    handles: dict[tuple[str, int], Line2D] = {}
    for index, (axes, name) in enumerate(zip(panels, names, strict=True)):
        options = list(found[0].alphas[name])
        for place, (option, label) in enumerate(zip(options, short_labels(options), strict=True)):
            steps = [event.step for event in found]
            values = [event.alphas.get(name, {}).get(option, np.nan) for event in found]
            left = [event.probabilities.get(name, {}).get(option, 0.0) > 0 for event in found]
            colour, style = hue(place), dash(place)
            kept = np.where(left, np.array(values, dtype=np.float64), np.nan)
            wide = 2.2 if taken.get(name) == option else 1.1
            axes.plot(steps, kept, style, color=colour, lw=wide)
            handles.setdefault(
                (label, place), Line2D([], [], color=colour, ls=style, lw=1.4, label=plain(label))
            )
            if (end := int(np.sum(left))) and end < len(steps):
                axes.plot(steps[end - 1], values[end - 1], "x", color=colour, ms=5)
        tidy(axes, name)
        if index == 0:
            axes.set_title("x: pruned; thick: chosen", fontsize=7.5, loc="right", color=FAINT)
    longest = max(len(label) for label, _ in handles)
    add_legend(figure, max(1, min(len(handles), 110 // (longest + 6))), list(handles.values()))
    return figure


def entropy_figure(record: Record) -> Figure | None:
    """Draw each decision's entropy over the steps, against that of equal probabilities."""
    names = decisions(record)
    courses = {name: _entropies(*alpha_matrix(record, name)) for name in names}
    if not courses:
        return None
    keys = list(dict.fromkeys(decision_key(name) for name in names))
    figure, panels = _panels(len(keys), len(keys), tall=2.5)
    for axes, key in zip(panels, keys, strict=True):
        members = [name for name in names if decision_key(name) == key]
        shades = colormaps["viridis"](np.linspace(0.0, 0.9, len(members)))
        for name, shade in zip(members, shades, strict=True):
            steps, values, most = courses[name]
            axes.plot(steps, values, color=shade, lw=1.4, label=plain(name))
        mark_equal(axes, most)
        axes.set_ylim(0, 1.12 * most or 1.0)
        axes.legend(fontsize=7, frameon=False, loc="lower left", ncols=2)
        tidy(axes, f"entropy of {key} [nats]")
    return figure


def mark_equal(axes: Axes, entropy: float) -> None:
    """Mark the entropy of probabilities that are all equal."""
    axes.axhline(entropy, color=FAINT, lw=0.9, ls="--")
    axes.text(1.0, entropy, "all equal ", fontsize=7.5, color=FAINT, ha="right", va="bottom",
              transform=axes.get_yaxis_transform())  # fmt: skip


def _entropies(
    steps: Sequence[int], options: Sequence[str], matrix: Floats
) -> tuple[Sequence[int], Floats, float]:
    safe = np.where(matrix > 0, matrix, 1.0)
    entropy: Floats = -(safe * np.log(safe)).sum(0)
    return steps, entropy, math.log(len(options))


def gradient_figure(groups: Mapping[str, Sequence[Norms]]) -> Figure | None:
    """Draw norms of the alphas' gradient: density over time as contours, and as box plots.

    Args:
        groups: Searches by what they are called; those of one group are drawn together.
    """
    filled = {label: [n for n in norms if len(n)] for label, norms in groups.items()}
    filled = {label: norms for label, norms in filled.items() if norms}
    if not filled:
        return None
    pooled = {
        label: Norms(
            np.concatenate([n.steps for n in norms]), np.concatenate([n.values for n in norms])
        )
        for label, norms in filled.items()
    }
    logarithmic = spreads_far(np.concatenate([norms.values for norms in pooled.values()]))
    across = min(len(pooled), 3)
    down = -(-len(pooled) // across)
    figure = new_figure(9.4, 2.9 * down + 0.3)
    halves: Any = figure.subfigures(1, 2, width_ratios=[2.0 if across < 3 else 2.6, 1.0])
    left, right = halves
    first: Axes | None = None
    for index, (label, norms) in enumerate(pooled.items()):
        axes = left.add_subplot(down, across, 1 + index, sharex=first, sharey=first)
        first = first or axes
        _contours(axes, norms, hue(index), logarithmic)
        tidy(axes, label, x="step", y="" if index % across else "norm of alpha's gradient")
    _boxes(right.add_subplot(), pooled, logarithmic)
    return figure


def _contours(axes: Axes, norms: Norms, colour: str, logarithmic: bool) -> None:
    """Draw the density of (step, norm), estimated with Gaussian kernels (Scott's rule)."""
    values = np.log10(np.maximum(norms.values, 1e-12)) if logarithmic else norms.values
    axes.plot(norms.steps, norms.values, ".", color=colour, alpha=0.35, ms=3, mew=0)
    density = _density(norms.steps, values)
    if density is not None:
        across, up, height = density
        levels = np.linspace(0.08, 0.95, 7) * height.max()
        shown = 10**up if logarithmic else up
        axes.contour(across, shown, height, levels=levels, colors=colour, linewidths=1.0)
        axes.contourf(across, shown, height, levels=[levels[0], levels[2], levels[4], height.max()],
                      colors=[colour], alpha=0.12)  # fmt: skip
    scale(axes, logarithmic)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def _density(steps: Floats, values: Floats) -> tuple[Floats, Floats, Floats] | None:
    """Return a grid of steps, of values, and the density there; None where there is no spread.

    The grid ends where the data do: there is no step before the first, and no norm beyond the
    largest.
    """
    from scipy.stats import gaussian_kde  # slow to import, and needed for this plot alone

    points = np.stack([steps, values])
    spread = points.std(axis=1)
    if points.shape[1] < 5 or not (spread > 1e-9 * np.abs(points).max(axis=1)).all():
        return None
    across = np.linspace(steps.min(), steps.max(), 80)
    up = np.linspace(values.min(), values.max(), 80)
    grid = np.stack(np.meshgrid(across, up))
    try:
        kernel = gaussian_kde(points)
    except np.linalg.LinAlgError:  # all points on one line
        return None
    return across, up, kernel(grid.reshape(2, -1)).reshape(grid.shape[1:])


def _boxes(axes: Axes, pooled: Mapping[str, Norms], logarithmic: bool) -> None:
    """Draw box plots: quartiles, whiskers to the last value within 1.5 of their distance."""
    # Axes.boxplot would import pyplot, and with it a backend.
    stats = boxplot_stats([norms.values for norms in pooled.values()])
    for index, box in enumerate(stats):
        colour = hue(index)
        axes.bar(index, box["q3"] - box["q1"], 0.5, box["q1"], color=colour + "55", ec=colour)
        axes.plot([index - 0.25, index + 0.25], [box["med"]] * 2, color=INK, lw=1.4)
        for quartile, end in (("q1", "whislo"), ("q3", "whishi")):
            axes.plot([index] * 2, [box[quartile], box[end]], color=colour, lw=1.0)
            axes.plot([index - 0.12, index + 0.12], [box[end]] * 2, color=colour, lw=1.0)
        axes.plot([index] * len(box["fliers"]), box["fliers"], "o", ms=3, mfc="none", mec=colour)
    axes.set_xticks(range(len(pooled)), [plain(label) for label in pooled])
    scale(axes, logarithmic)
    axes.set_xlim(-0.6, len(pooled) - 0.4)
    tidy(axes, "over all steps")


def discretisation_figure(record: Record) -> Figure | None:
    """Draw the scores of mixture, argmax child and trained child, per task and on average."""
    scored = record.validated()
    found = [scored[name] for name in (MIXTURE, ARGMAX, TRAINED) if name in scored]
    if MIXTURE not in scored or len(found) < 2:
        return None
    figure, (axes,) = new_panels(1, 1, 3.0)
    at = range(len(found))
    for index, task in enumerate(found[0].task_scores):
        scores = [event.task_scores.get(task, np.nan) for event in found]
        axes.plot(at, scores, marker="o", ms=3, lw=1.0, alpha=0.6, color=hue(index),
                  ls=dash(index), label=plain(task))  # fmt: skip
    means = [np.nan if event.score is None else event.score for event in found]
    axes.plot(at, means, "o-", color=INK, lw=2.4, ms=6, label="average")
    for place, mean in zip(at, means, strict=True):
        axes.annotate(f"{mean:.3f}", (place, mean), (0, 7), fontsize=9, fontweight="bold",
                      textcoords="offset points", ha="center", color=INK)  # fmt: skip
    axes.set_xticks(at, [event.name for event in found], fontsize=9)
    axes.set_xlim(-0.3, len(found) - 0.7)
    axes.margins(y=0.15)
    tidy(axes, f"discretisation gap {means[0] - means[1]:+.4f}", y="score")
    add_legend(figure, 1, where="right center")
    return figure


def _panels(count: int, keys: int, tall: float = 2.1) -> tuple[Figure, list[Axes]]:
    across = keys if keys in (2, 3) else min(count, 3)
    figure, panels = new_panels(count, across, tall, 0.2, share="x", under="step")
    for axes in panels:
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return figure, panels
