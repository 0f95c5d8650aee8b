"""Plots of the training loss: the phases beside each other, and every task."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from prefixnas.report.plots.style import (
    INK,
    add_legend,
    dash,
    hue,
    new_panels,
    plain,
    tidy,
)
from prefixnas.run import events
from prefixnas.run.record import Record, loss_series

Floats = NDArray[np.float64]

TRAIN = "train"
"""The phase that goes on where a search ended; all others begin with fresh weights."""


def smooth(values: Floats, span: float) -> Floats:
    """Return the exponential moving average, corrected for its start: `[n]` to `[n]`.

    Args:
        values: The series; entries that are not finite are passed over.
        span: Centre of mass of the weights, in entries; 0 returns the values.
    """
    keep = span / (span + 1.0)
    total = weight = 0.0
    smoothed = np.full(len(values), np.nan)
    for index, value in enumerate(values):
        if math.isfinite(value):
            total, weight = keep * total + (1 - keep) * value, keep * weight + (1 - keep)
        if weight:
            smoothed[index] = total / weight
    return smoothed


def loss_figure(record: Record) -> Figure | None:
    """Draw all phases in one panel, the mean of the tasks' losses of each, raw and smoothed.

    Training on begins at the step where the search ended, so that what both took can be compared
    with baselines of as many steps. Phases that differ by a number only ("trial 3") have one name.
    """
    groups = _groups(record)
    if not groups:
        return None
    figure, (axes,) = new_panels(1, 1, 3.2, 0.3)
    for index, phases in enumerate(groups.values()):
        many = len(phases) > 1
        for phase in phases:
            steps, means = mean_loss(record, phase)
            steps = steps + (_spent(record) if phase == TRAIN else 0)
            if not many:
                axes.plot(steps, means, color=hue(index), alpha=0.2, lw=0.7)
            axes.plot(steps, smooth(means, len(means) / 40), dash(index), color=hue(index),
                      lw=0.8 if many else 1.6, alpha=0.6 if many else 1.0)  # fmt: skip
    names = [f"{title} ({len(phases)})" * (len(phases) > 1) or title
             for title, phases in groups.items()]  # fmt: skip
    lines = [Line2D([], [], color=hue(index), ls=dash(index), label=plain(name))
             for index, name in enumerate(names)]  # fmt: skip
    _scale([axes], record)
    tidy(axes, x="step", y="loss")
    add_legend(figure, 4, lines)
    return figure


def _spent(record: Record) -> int:
    """Return the steps that the search took."""
    steps = (record.result or {}).get("steps", {})
    known: int = steps.get("search", sum(e.phase == "search" for e in record.of(events.Step)))
    return known


def _groups(record: Record) -> dict[str, list[str]]:
    """Return the phases that took steps, by their names without numbers."""
    groups: dict[str, list[str]] = {}
    for phase in record.phases():
        groups.setdefault(re.sub(r" \d+$", "", phase), []).append(phase)
    return groups


def _scale(panels: Sequence[Axes], record: Record) -> None:
    """Make the losses' axis logarithmic, with numbers as people write them, if all are above 0."""
    if min((loss for e in record.of(events.Step) for loss in e.losses.values()), default=0.0) <= 0:
        return
    for axes in panels:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())


def task_loss_figure(record: Record) -> Figure | None:
    """Draw a panel per phase: each task's loss, raw and smoothed, and the mean of the tasks.

    Phases that differ by a number only ("trial 3") share a panel of their mean losses.
    """
    panels = _groups(record)
    if not panels:
        return None
    tasks = list(dict.fromkeys(t for p in record.phases() for t in loss_series(record, p)))
    across = min(len(panels), 3)
    legend = 0.35 * math.ceil(len(tasks) / 5)
    figure, places = new_panels(len(panels), across, 3.1, legend, share="y")
    lines: dict[str, Line2D] = {}
    for index, (axes, (title, phases)) in enumerate(zip(places, panels.items(), strict=True)):
        if len(phases) == 1:
            lines.update(_task_curves(axes, record, phases[0], tasks))
        else:
            title = f"{title}: {len(phases)} runs, mean of tasks"
            shades = colormaps["viridis"](np.linspace(0.0, 0.9, len(phases)))
            for phase, shade in zip(phases, shades, strict=True):
                steps, means = mean_loss(record, phase)
                axes.plot(steps, smooth(means, len(means) / 40), color=shade, lw=1.2)
        tidy(axes, title, x="step", y="" if index % across else "loss")
    _scale(places, record)
    if lines:
        add_legend(figure, 5, list(lines.values()))
    return figure


def mean_loss(record: Record, phase: str) -> tuple[NDArray[np.int64], Floats]:
    """Return steps and the mean of the tasks' losses in a phase."""
    found = [e for e in record.of(events.Step) if e.phase == phase and e.losses]
    steps = np.array([e.step for e in found], dtype=np.int64)
    return steps, np.array([e.loss for e in found], dtype=np.float64)


def _task_curves(axes: Axes, record: Record, phase: str, tasks: Sequence[str]) -> dict[str, Line2D]:
    lines: dict[str, Line2D] = {}
    for task, (steps, losses) in loss_series(record, phase).items():
        index = tasks.index(task)
        axes.plot(steps, losses, color=hue(index), alpha=0.16, lw=0.7)
        (lines[task],) = axes.plot(steps, smooth(losses, len(losses) / 40), dash(index),
                                   color=hue(index), lw=1.4, label=plain(task))  # fmt: skip
    steps, means = mean_loss(record, phase)
    (mean,) = axes.plot(
        steps, smooth(means, len(means) / 40), color=INK, lw=2.0, label="mean of tasks"
    )
    return {**lines, "mean of tasks": mean}
