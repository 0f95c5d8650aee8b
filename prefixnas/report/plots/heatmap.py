"""The heat map of a search: how the probabilities of all candidates moved."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from prefixnas.report.plots.style import INK, LINE, new_panels, plain
from prefixnas.run.record import Record, alpha_matrix, decisions
from prefixnas.space.architecture import decision_key


def alpha_figure(record: Record) -> Figure | None:
    """Draw a heat map per decision: rows are options, columns are steps."""
    maps = {name: alpha_matrix(record, name) for name in decisions(record)}
    if not maps:
        return None
    names = list(maps)
    labels = {
        name: [_wrapped(label) for label in short_labels(options)]
        for name, (_, options, _) in maps.items()
    }
    keys = len({decision_key(name) for name in names})
    across = keys if keys in (2, 3) else min(len(names), 3 if len(names) > 4 else 2)
    tallest = max(sum(1 + label.count("\n") for label in texts) for texts in labels.values())
    # Equal probabilities are at most half way up the scale, so they do not look like a decision.
    fewest = min(len(options) for _, options, _ in maps.values())
    high = max(min(1.0, 2 / fewest), *(float(np.nanmax(matrix)) for _, _, matrix in maps.values()))
    each = max(1.3, 0.19 * tallest + 0.5)
    figure, grid = new_panels(len(names), across, each, 0.7, under="step")
    colours = colormaps["viridis"].with_extremes(bad=LINE)
    chosen: Mapping[str, str] = record.architecture or {}
    for index, (axes, name) in enumerate(zip(grid, names, strict=True)):
        steps, options, matrix = maps[name]
        mesh = axes.pcolormesh(
            cell_edges(steps),
            np.arange(len(options) + 1) - 0.5,
            np.ma.masked_where(~(matrix > 0), matrix),
            cmap=colours,
            vmin=0.0,
            vmax=high,
            rasterized=True,
        )
        axes.set_title(plain(name), fontsize=9, loc="left")
        same = index % across > 0 and labels[name] == labels[names[index - 1]]
        _label(axes, options, [] if same else labels[name], chosen.get(name))
    bar = figure.colorbar(mesh, ax=grid, location="top", aspect=60, shrink=0.5, pad=0.02)
    bar.set_label("probability (grey: pruned; ◂ chosen)", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    return figure


def _label(axes: Axes, options: Sequence[str], labels: Sequence[str], chosen: str | None) -> None:
    """Name the rows of a heat map, if they have names of their own, and mark the chosen one."""
    axes.set_facecolor(LINE)
    axes.set_ylim(len(options) - 0.5, -0.5)
    axes.set_yticks(range(len(options)), map(plain, labels), fontsize=8)
    if chosen in options:
        row = options.index(chosen)
        if labels:
            axes.get_yticklabels()[row].set_fontweight("bold")
        axes.plot([1.02], [row], marker="<", ms=5, color=INK, clip_on=False,
                  transform=axes.get_yaxis_transform())  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=True))
    axes.tick_params(axis="x", labelsize=8)


def cell_edges(steps: Sequence[int]) -> NDArray[np.float64]:
    """Return the borders of the columns that stand for `steps`: `[n]` to `[n + 1]`, halfway."""
    at = np.asarray(steps, dtype=np.float64)
    if len(at) == 1:
        return np.array([at[0] - 0.5, at[0] + 0.5])
    middle = (at[1:] + at[:-1]) / 2
    return np.concatenate([[2 * at[0] - middle[0]], middle, [2 * at[-1] - middle[-1]]])


def short_labels(options: Sequence[str]) -> list[str]:
    """Leave out the operations that all options begin or end with: `linear+relu` to `relu`."""
    parts = [option.split("+") for option in options]
    if len(parts) < 2 or any("(" in part and ")" not in part for p in parts for part in p):
        return list(options)
    front = back = 0
    while all(len(p) > front + 1 and p[front] == parts[0][front] for p in parts):
        front += 1
    while all(len(p) > front + back + 1 and p[-1 - back] == parts[0][-1 - back] for p in parts):
        back += 1
    return ["+".join(p[front : len(p) - back]) for p in parts]


def _wrapped(label: str) -> str:
    """Break a long label behind its plus signs, and cut what is longer than three lines."""
    lines = textwrap.wrap(label.replace("+", "+ "), 26, max_lines=3, placeholder=" …")
    return "\n".join(lines).replace("+ ", "+")
