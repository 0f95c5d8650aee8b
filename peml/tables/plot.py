"""A table as a figure: a line a row, every run a point."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from peml.tables.summary import RowSummary
from prefixnas.report.plots.style import add_legend, hue, new_panels, plain, tidy

PAPER = "#D55E00"


def table_figure(rows: Sequence[RowSummary], title: str) -> Figure | None:
    """Draw the averages of the rows that have finished runs; None: none has.

    A small point is a run, a large one the mean with the standard deviation; an open diamond is the
    paper's own average, of the paper's model and tasks.
    """
    shown = [row for row in rows if row.records]
    if not shown:
        return None
    figure, (axes,) = new_panels(1, 1, 0.8 + 0.32 * len(shown), 0.4, width=7.5)
    for place, row in enumerate(reversed(shown)):
        spread = row.average[1]
        scores = list(row.averages.values())
        axes.plot(scores, [place] * len(scores), "o", color=hue(0), ms=3.5, alpha=0.45, mew=0)
        axes.errorbar(
            [fmean(scores)], [place], xerr=spread, fmt="o", color=hue(0), ms=7, capsize=3, lw=1.2
        )
        if isinstance(row.of_paper, int | float):
            axes.plot([row.of_paper], [place], "D", mfc="white", mec=PAPER, ms=6)
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.set_yticks(range(len(shown)), [plain(row.label) for row in reversed(shown)])
    tidy(axes, title, x="average validation score", grid="x")
    add_legend(figure, 2, _legend(shown))
    return figure


def _legend(rows: Sequence[RowSummary]) -> list[Line2D]:
    """Return what the marks mean."""
    here = Line2D([], [], marker="o", color=hue(0), ls="", ms=7, label="here: mean ± sd, runs")
    paper = Line2D([], [], marker="D", mfc="white", mec=PAPER, ls="", ms=6,
                   label="the paper's own average")  # fmt: skip
    papers = any(isinstance(row.of_paper, int | float) for row in rows)
    return [here, paper] if papers else [here]
