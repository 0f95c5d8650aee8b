"""Plots of a run, drawn from its events."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from prefixnas.base.files import make_folder
from prefixnas.report.plots.alphas import (
    alpha_gradient_norms,
    discretisation_figure,
    entropy_figure,
    gradient_figure,
    mark_equal,
    trajectory_figure,
)
from prefixnas.report.plots.confusion import confusion_figure
from prefixnas.report.plots.graph import graph_figure
from prefixnas.report.plots.heatmap import alpha_figure
from prefixnas.report.plots.losses import loss_figure, task_loss_figure
from prefixnas.report.plots.style import (
    FAINT,
    INK,
    add_legend,
    hue,
    new_panels,
    plain,
    save_figures,
    scale,
    spreads_far,
    tidy,
)
from prefixnas.report.plots.trials import trial_figure
from prefixnas.report.tables import interval_reaches, score_rows
from prefixnas.run import events
from prefixnas.run.record import Record, alpha_matrix, decisions
from prefixnas.run.result import Columns
from prefixnas.space.graph import architecture_graph
from prefixnas.space.space import SearchSpace

Floats = NDArray[np.float64]

#: Titles of the plots, in the order of the report.
TITLES = {
    "scores": "Scores on the validation split",
    "confusion": "What the trained child took for what, number of validation examples",
    "losses": "Training loss by phase, mean of the tasks",
    "losses_by_task": "Training loss of every task",
    "trials": "Trials: score of each, and the best so far",
    "alphas": "Probabilities of the candidates",
    "trajectories": "Alpha",
    "entropy": "Entropy of each decision",
    "discretisation": "From the mixture to the trained child",
    "gradients": "Norm of alpha's gradient: density over time, and distribution",
    "stability": "Stability of the search",
    "architecture": "Architecture",
}


def draw_record(record: Record, space: SearchSpace | None) -> dict[str, Path]:
    """Draw what the events of a run allow into its `plots/`, and remove what they no longer allow.

    Args:
        record: The run.
        space: The run's space; without it there is no drawing of the architecture.

    Returns:
        The files by name, in the order of `TITLES`.

    Raises:
        UserError: A folder that cannot be written.
    """
    figures = {
        "scores": score_figure(record),
        "confusion": confusion_figure(record),
        "losses": loss_figure(record),
        "losses_by_task": task_loss_figure(record),
        "trials": trial_figure(record),
        "alphas": alpha_figure(record),
        "trajectories": trajectory_figure(record),
        "entropy": entropy_figure(record),
        "discretisation": discretisation_figure(record),
        "gradients": gradient_figure({"this run": [alpha_gradient_norms(record)]}),
        "stability": stability_figure(record),
        "architecture": _architecture_figure(record, space),
    }
    make_folder(record.folder / "plots")
    return save_figures(record.folder / "plots", figures)


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
    figure, panels = new_panels(len(filled), 1, 1.75, 0.3, share="x", under="step")
    for index, (axes, (title, points)) in enumerate(zip(panels, filled.items(), strict=True)):
        at, values = np.array(points, dtype=np.float64).T
        axes.plot(at, values, color=hue(index), lw=1.4)
        tidy(axes, title)
        if "entropy" in title:
            most = _largest_entropy(record)
            mark_equal(axes, most)
            for prune in record.of(events.Prune):
                axes.axvline(prune.step, color=hue(1), lw=0.8, alpha=0.45, zorder=0)
            axes.set_ylim(0, max(most, float(values.max())) * 1.12 or 1.0)
            if record.of(events.Prune):
                axes.set_title("vertical lines: pruning", fontsize=8, loc="right", color=hue(1))
        else:
            scale(axes, spreads_far(values))
    return figure


def _largest_entropy(record: Record) -> float:
    """Return the entropy of alphas that are all equal, nothing pruned."""
    return sum(math.log(len(alpha_matrix(record, name)[1])) for name in decisions(record))


def score_figure(record: Record) -> Figure | None:
    """Draw the score table as bars: a group per task, a bar per column, with 95 % intervals."""
    columns: Columns = {label: column for label, column in record.columns().items() if column}
    rows = score_rows(columns)
    if not rows:
        return None
    thick = 0.8 / len(columns)
    figure, (axes,) = new_panels(1, 1, (0.17 * len(columns) + 0.25) * len(rows) + 0.9)
    low = 0.0
    for place, label in enumerate(columns):
        at = -0.4 + (place + 0.5) * thick
        found = [
            (row + at, scores[place], interval_reaches(columns, name)[place] or 0.0)
            for row, (name, scores) in enumerate(rows)
        ]
        there = [(y, score, reach) for y, score, reach in found if score is not None]
        low = min([low, *(score - reach for _, score, reach in there)])
        axes.barh([y for y, _, _ in there], [score for _, score, _ in there], height=0.9 * thick,
                  color=hue(place), label=plain(label))  # fmt: skip
        for y, score, reach in there:
            axes.plot([score - reach, score + reach] * bool(reach), [y, y] * bool(reach),
                      color=INK, lw=0.8)  # fmt: skip
            axes.annotate(f"{score:.3f}", (max(score + reach, 0.0), y), (3, 0), fontsize=7,
                          va="center", textcoords="offset points", color=INK)  # fmt: skip
    axes.set_yticks(range(len(rows)), [plain(name) for name, _ in rows], fontsize=9)
    axes.get_yticklabels()[-1].set_fontweight("bold")
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.axhline(len(rows) - 1.5, color=FAINT, lw=0.8)
    axes.margins(x=0.08)
    axes.set_xlim(left=min(0.0, 1.15 * low))
    tidy(axes, grid="x")
    axes.tick_params(axis="y", length=0, labelsize=9)
    add_legend(figure, 3)
    return figure


def _architecture_figure(record: Record, space: SearchSpace | None) -> Figure | None:
    if space is None or space.empty or record.architecture is None:
        return None
    return graph_figure(architecture_graph(space, record.architecture))
