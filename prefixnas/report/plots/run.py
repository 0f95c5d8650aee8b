"""Plots of a run, drawn from its events."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from prefixnas.base.files import make_folder
from prefixnas.report.plots.alphas import (
    alpha_gradient_norms,
    discretisation_figure,
    entropy_figure,
    gradient_figure,
    trajectory_figure,
)
from prefixnas.report.plots.graph import graph_figure
from prefixnas.report.plots.heatmap import alpha_figure
from prefixnas.report.plots.style import FAINT, HUES, INK, plain, save_figure
from prefixnas.report.plots.trials import trial_figure
from prefixnas.run import events
from prefixnas.run.record import Record, alpha_matrix, decisions, loss_series, read_record
from prefixnas.space.graph import architecture_graph
from prefixnas.space.space import SearchSpace

Floats = NDArray[np.float64]

#: Titles of the plots, in the order of the report.
TITLES = {
    "scores": "Scores on the validation split",
    "losses": "Training loss",
    "trials": "Trials: score of each, and the best so far",
    "alphas": "Probabilities of the candidates",
    "trajectories": "Alpha",
    "entropy": "Entropy of each decision",
    "discretisation": "From the mixture to the trained child",
    "gradients": "Norm of alpha's gradient: density over time, and distribution",
    "stability": "Stability of the search",
    "architecture": "Architecture",
}
_WIDTH = 9.0


def write_plots(run_dir: Path, space: SearchSpace | None = None) -> dict[str, Path]:
    """Draw what the run's events allow into `plots/`, and remove plots they no longer allow.

    Args:
        run_dir: The run folder.
        space: The run's space; without it there is no drawing of the architecture.

    Returns:
        The files by name, in the order of `TITLES`.

    Raises:
        UserError: No run folder, a damaged file, or a folder that cannot be written.
    """
    return draw_record(read_record(run_dir), space)


def draw_record(record: Record, space: SearchSpace | None) -> dict[str, Path]:
    """Draw the plots of a run that was read already; see `write_plots`."""
    makers: dict[str, Callable[[], Figure | None]] = {
        "scores": lambda: score_figure(record),
        "losses": lambda: loss_figure(record),
        "trials": lambda: trial_figure(record),
        "alphas": lambda: alpha_figure(record),
        "trajectories": lambda: trajectory_figure(record),
        "entropy": lambda: entropy_figure(record),
        "discretisation": lambda: discretisation_figure(record),
        "gradients": lambda: gradient_figure({"this run": [alpha_gradient_norms(record)]}),
        "stability": lambda: stability_figure(record),
        "architecture": lambda: _architecture_figure(record, space),
    }
    folder = record.folder / "plots"
    make_folder(folder)
    written = {}
    for name in TITLES:
        path = folder / f"{name}.png"
        figure = makers[name]()
        if figure is None:
            path.unlink(missing_ok=True)
        else:
            save_figure(figure, path)
            written[name] = path
    return written


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
    """Draw a panel per phase: each task's loss, raw and smoothed, and the mean of the tasks.

    Phases that differ by a number only ("trial 3") share a panel of their mean losses.
    """
    panels: dict[str, list[str]] = {}
    for phase in record.phases():
        panels.setdefault(re.sub(r" \d+$", "", phase), []).append(phase)
    if not panels:
        return None
    tasks = list(dict.fromkeys(t for p in record.phases() for t in loss_series(record, p)))
    across = min(len(panels), 3)
    down = -(-len(panels) // across)
    figure = _figure(_WIDTH, 3.1 * down + 0.35 * -(-len(tasks) // 5))
    first: Axes | None = None
    handles: dict[str, Line2D] = {}
    for index, (title, phases) in enumerate(panels.items()):
        axes = figure.add_subplot(down, across, 1 + index, sharey=first)
        first = first or axes
        several = f"{title}: {len(phases)} runs, mean of tasks"
        axes.set_title(plain(title if len(phases) == 1 else several), fontsize=9, loc="left")
        if len(phases) == 1:
            handles.update(_task_curves(axes, record, phases[0], tasks))
        else:
            shades = colormaps["viridis"](np.linspace(0.0, 0.9, len(phases)))
            for phase, shade in zip(phases, shades, strict=True):
                steps, means = mean_loss(record, phase)
                axes.plot(steps, smooth(means, len(means) / 40), color=shade, lw=1.2)
        axes.set_xlabel("step", fontsize=8)
        if index % across == 0:
            axes.set_ylabel("loss", fontsize=8)
        _tidy(axes)
    if handles:
        figure.legend(list(handles.values()), list(map(plain, handles)), ncols=5, fontsize=8,
                      loc="outside lower center", frameon=False)  # fmt: skip
    return figure


def mean_loss(record: Record, phase: str) -> tuple[NDArray[np.int64], Floats]:
    """Return steps and the mean of the tasks' losses in a phase."""
    found = [e for e in record.of(events.Step) if e.phase == phase and e.losses]
    steps = np.array([e.step for e in found], dtype=np.int64)
    return steps, np.array([e.loss for e in found], dtype=np.float64)


def _task_curves(axes: Axes, record: Record, phase: str, tasks: Sequence[str]) -> dict[str, Line2D]:
    handles: dict[str, Line2D] = {}
    for task, (steps, losses) in loss_series(record, phase).items():
        index = tasks.index(task)
        style = ("-", "--", ":", "-.")[index // len(HUES) % 4]
        colour = HUES[index % len(HUES)]
        axes.plot(steps, losses, color=colour, alpha=0.16, lw=0.7)
        (handles[task],) = axes.plot(
            steps, smooth(losses, len(losses) / 40), style, color=colour, lw=1.4
        )
    steps, means = mean_loss(record, phase)
    (line,) = axes.plot(steps, smooth(means, len(means) / 40), color=INK, lw=2.0)
    return {**handles, "mean of tasks": line}


def stability_figure(record: Record) -> Figure | None:
    """Draw alpha's entropy, the norm of its gradient and its variance over the steps."""
    alphas = record.of(events.Alpha)
    series: dict[str, list[tuple[int, float | None]]] = {
        "entropy of alpha [nats]": [(e.step, e.entropy) for e in record.of(events.Step)],
        "norm of alpha's gradient": [(e.step, e.gradient_norm) for e in alphas],
        "variance of alpha": [(e.step, e.variance) for e in alphas],
    }
    known = {title: [p for p in points if p[1] is not None] for title, points in series.items()}
    filled = {title: points for title, points in known.items() if points}
    if not filled:
        return None
    figure = _figure(_WIDTH, 1.75 * len(filled) + 0.3)
    first: Axes | None = None
    for index, (title, points) in enumerate(filled.items()):
        axes = figure.add_subplot(len(filled), 1, 1 + index, sharex=first)
        first = first or axes
        at, values = np.array(points, dtype=np.float64).T
        axes.plot(at, values, color=HUES[index], lw=1.4)
        axes.set_title(title, fontsize=9, loc="left")
        if "entropy" in title:
            most = _largest_entropy(record)
            axes.axhline(most, color=FAINT, lw=0.9, ls="--")
            axes.text(1.0, most, "all equal ", fontsize=7.5, color=FAINT, ha="right", va="top",
                      transform=axes.get_yaxis_transform())  # fmt: skip
            for prune in record.of(events.Prune):
                axes.axvline(prune.step, color=HUES[1], lw=0.8, alpha=0.45, zorder=0)
            axes.set_ylim(0, max(most, float(values.max())) * 1.06 or 1.0)
            if record.of(events.Prune):
                axes.set_title("vertical lines: pruning", fontsize=8, loc="right", color=HUES[1])
        elif values.min() > 0 and values.max() > 20 * values.min():
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        _tidy(axes)
        if index + 1 < len(filled):
            axes.tick_params(axis="x", labelbottom=False)
    axes.set_xlabel("step", fontsize=8)
    return figure


def _largest_entropy(record: Record) -> float:
    """Return the entropy of alphas that are all equal, nothing pruned."""
    return sum(math.log(len(alpha_matrix(record, name)[1])) for name in decisions(record))


def score_figure(record: Record) -> Figure | None:
    """Draw the score table as bars: a group per task, a bar per column."""
    columns = {label: column for label, column in record.columns().items() if column}
    tasks = list(dict.fromkeys(t for c in columns.values() for t in c["task_scores"]))
    if not tasks:
        return None
    rows = [*tasks, "average"]
    thick = 0.8 / len(columns)
    figure = _figure(_WIDTH, 0.17 * len(rows) * len(columns) + 0.25 * len(rows) + 0.9)
    axes = figure.add_subplot()
    low = 0.0
    for place, (label, column) in enumerate(columns.items()):
        values = [column["task_scores"].get(task) for task in tasks] + [column["score"]]
        at = [row - 0.4 + (place + 0.5) * thick for row in range(len(rows))]
        there = [(y, value) for y, value in zip(at, values, strict=True) if value is not None]
        low = min([low, *(value for _, value in there)])
        axes.barh([y for y, _ in there], [value for _, value in there], height=0.9 * thick,
                  color=HUES[place % len(HUES)], label=plain(label))  # fmt: skip
        for y, value in there:
            axes.annotate(f"{value:.3f}", (max(value, 0.0), y), (3, 0), fontsize=7, va="center",
                          textcoords="offset points", color=INK)  # fmt: skip
    axes.set_yticks(range(len(rows)), map(plain, rows), fontsize=9)
    axes.get_yticklabels()[-1].set_fontweight("bold")
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.axhline(len(tasks) - 0.5, color=FAINT, lw=0.8)
    axes.margins(x=0.08)
    axes.set_xlim(left=min(0.0, 1.15 * low))
    _tidy(axes, "x")
    axes.tick_params(axis="y", length=0, labelsize=9)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def _architecture_figure(record: Record, space: SearchSpace | None) -> Figure | None:
    if space is None or record.architecture is None:
        return None
    return graph_figure(architecture_graph(space, record.architecture))


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def _tidy(axes: Axes, grid: str = "y") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x" if grid == "x" else "y", color="#e3e5e8", lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
