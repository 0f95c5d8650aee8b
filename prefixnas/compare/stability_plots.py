"""Plots of several searches beside each other: the paper's figure 8, and what its table holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from prefixnas.base.estimates import mean_and_spread
from prefixnas.compare.agreement import OVERALL
from prefixnas.compare.stability import COLUMNS, Measured, agreements
from prefixnas.report.plots.alphas import gradient_figure
from prefixnas.report.plots.style import (
    FAINT,
    INK,
    add_legend,
    hue,
    new_panels,
    plain,
    save_figures,
    tidy,
)

Groups = Mapping[str, Sequence[Measured]]


def write_stability_plots(folder: Path, groups: Groups) -> list[Path]:
    """Draw `gradients.png`, `stability.png` and `agreement.png`, as far as there is anything.

    Raises:
        UserError: A file cannot be written.
    """
    figures = {
        "gradients": gradient_figure(
            {label: [search.norms for search in members] for label, members in groups.items()}
        ),
        "stability": number_figure(groups),
        "agreement": agreement_figure(groups),
    }
    return list(save_figures(folder, figures).values())


def number_figure(groups: Groups) -> Figure:
    """Draw a panel per column of the table: a dot per run, a bar for the mean of a group."""
    keys = [
        key
        for key in COLUMNS
        if any(search.numbers[key] is not None for members in groups.values() for search in members)
    ]
    figure, panels = new_panels(len(keys), len(keys), 2.9, width=2.4 * len(keys) + 0.4)
    for axes, key in zip(panels, keys, strict=True):
        for place, members in enumerate(groups.values()):
            values = [v for search in members if (v := search.numbers[key]) is not None]
            axes.plot([place] * len(values), values, "o", color=hue(place), alpha=0.6, ms=5, mew=0)
            mean, _ = mean_and_spread(values)
            if mean is not None:
                axes.plot([place - 0.28, place + 0.28], [mean] * 2, color=INK, lw=1.8)
        axes.set_xticks(range(len(groups)), [plain(label) for label in groups], rotation=20,
                        ha="right")  # fmt: skip
        axes.set_xlim(-0.6, len(groups) - 0.4)
        tidy(axes, COLUMNS[key])
        axes.margins(y=0.15)
        if "gap" in key:
            axes.axhline(0, color=FAINT, lw=0.9, ls="--")
    return figure


def agreement_figure(groups: Groups) -> Figure | None:
    """Draw the share of agreeing pairs per decision, a bar per group, with chance as a line."""
    found = {label: agreements(members) for label, members in groups.items()}
    found = {label: rows for label, rows in found.items() if rows}
    if not found:
        return None
    names = list(dict.fromkeys(row.decision for rows in found.values() for row in rows))
    names.sort(key=lambda name: name == OVERALL)
    thick = 0.8 / len(found)
    figure, (axes,) = new_panels(1, 1, (0.19 * len(found) + 0.15) * len(names) + 0.9)
    for place, (label, rows) in enumerate(found.items()):
        for row in rows:
            middle = names.index(row.decision) - 0.4 + (place + 0.5) * thick
            first = row.decision == rows[0].decision
            axes.barh(middle, row.share, height=0.88 * thick, color=hue(place),
                      label=plain(label) if first else None)  # fmt: skip
            axes.plot([row.chance] * 2, [middle - thick / 2, middle + thick / 2], color=INK, lw=1.5,
                      label="chance" if first and place == len(found) - 1 else None)  # fmt: skip
    axes.set_yticks(range(len(names)), [plain(name) for name in names], fontsize=8)
    axes.get_yticklabels()[-1].set_fontweight("bold")
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, 1.02)
    tidy(axes, x="share of the pairs of runs that took the same option", grid="x")
    add_legend(figure, 4)
    return figure
