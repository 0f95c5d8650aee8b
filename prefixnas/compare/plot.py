"""The plot of a comparison: what a run costs against what it scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from prefixnas.compare.comparison import AVERAGE_RANDOM
from prefixnas.compare.summary import Summary
from prefixnas.report.plots.style import FAINT, HUES, add_legend, hue, new_panels, plain, tidy

_SHAPES = {"alone": "*", "draw": "X", "hand-made": "sDPv^", "search": "oH8p"}
_GREYS = ("#333333", "#555555", "#777777", "#999999", "#222222")


def comparison_figure(tables: Mapping[str, Sequence[Summary]]) -> Figure | None:
    """Draw a panel per space: score against the seconds of a run.

    A small point is a run, a large one its variant's mean with the standard deviation of the
    scores; the thin line comes from the architecture as it was found, before training on. The band
    is the average random architecture with one standard deviation.
    """
    spaces = {space: [row for row in rows if row.runs] for space, rows in tables.items()}
    spaces = {space: rows for space, rows in spaces.items() if rows}
    if not spaces:
        return None
    labels = list(dict.fromkeys((row.kind, row.label) for rows in spaces.values() for row in rows))
    across = min(len(spaces), 2)
    lines = math.ceil(len(labels) / 4)
    width = 1.0 + 5.0 * across
    figure, panels = new_panels(len(spaces), across, 3.6, 0.25 * lines + 0.4, width=width)
    handles: dict[str, Line2D] = {}
    for axes, (space, rows) in zip(panels, spaces.items(), strict=True):
        for row in rows:
            same = [label for kind, label in labels if kind == row.kind]
            handles[row.label] = _variant(axes, row, *_look(row, same.index(row.label)))
        seconds = "seconds of a run: search, training, evaluations"
        tidy(axes, f"space {space}", x=seconds, y="validation score", grid="both")
        axes.set_xlim(left=0)
    add_legend(figure, 4, list(handles.values()))
    return figure


def _look(row: Summary, number: int) -> tuple[str, str]:
    """Return colour and marker: hues for searches, greys for what they are compared with."""
    shapes = _SHAPES[row.kind]
    if row.kind == "search":
        return hue(number), shapes[number // len(HUES) % len(shapes)]
    if row.kind == "draw":
        return FAINT, shapes
    return _GREYS[number % len(_GREYS)], shapes[number % len(shapes)]


def _variant(axes: Axes, row: Summary, colour: str, marker: str) -> Line2D:
    points = [(r.seconds, r.score) for r in row.runs if None not in (r.seconds, r.score)]
    for point in points:
        axes.plot(*_point(*point), marker, color=colour, ms=3.5, alpha=0.45, mew=0)
    seconds, mean = _point(row.mean_of("seconds"), row.mean)
    if row.label == AVERAGE_RANDOM:
        half = row.spread or 0.0
        axes.axhspan(float(mean[0]) - half, float(mean[0]) + half, color=FAINT, alpha=0.13, lw=0)
        axes.axhline(float(mean[0]), color=FAINT, lw=0.9, ls="--")
    if row.kind == "search":
        found, before = _point(row.mean_of("search_seconds"), row.mean_of("argmax_child"))
        axes.plot([*found, *seconds], [*before, *mean], "-", color=colour, lw=0.8, alpha=0.7)
        axes.plot(found, before, "o", mfc="white", mec=colour, ms=4.5, mew=1.0)
    axes.errorbar(seconds, mean, yerr=row.spread, fmt=marker, color=colour, ms=8, capsize=3,
                  lw=1.2, mec="white", mew=0.8)  # fmt: skip
    return Line2D([], [], marker=marker, color=colour, ls="", ms=7, label=plain(row.label))


def _point(x: float | None, y: float | None) -> tuple[list[float], list[float]]:
    """Return a point as matplotlib takes it; one that is not there is NaN."""
    return [math.nan if x is None else x], [math.nan if y is None else y]
