"""Confusion matrices: which class was taken for which."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from prefixnas.report.answers import shown_column
from prefixnas.report.plots.style import INK, new_figure, plain
from prefixnas.run.record import Record

COUNTED = 12
"""Classes up to which every cell holds its number."""

EACH = 0.17
"""Inches that a class takes at least, so that its name can be read."""


def confusion_figure(record: Record) -> Figure | None:
    """Draw a matrix per task of classes: rows are what is right, columns what was answered.

    The shade is the share of the row's examples; the numbers are those of examples.
    """
    found = []
    for task, kept in record.answers().items():
        counts = kept.confusion.get(shown_column(kept) or "")
        if counts:
            found.append((task, kept.labels, np.array(counts, dtype=np.int64)))
    if not found:
        return None
    most = max(len(labels) for _, labels, _ in found)
    longest = max(len(label) for _, labels, _ in found for label in labels)
    across = 3 if most <= 4 else 2 if most <= COUNTED else 1
    across = min(across, len(found))
    down = -(-len(found) // across)
    tall = max(1.9, EACH * most + 0.9) + min(longest, 30) * 0.04 * (most > 3)
    figure = new_figure(9.0 if across > 1 else min(9.0, 3.5 + EACH * most), tall * down)
    for index, (task, labels, matrix) in enumerate(found):
        axes = figure.add_subplot(down, across, 1 + index)
        _matrix(axes, labels, matrix)
        axes.set_title(plain(task), fontsize=9, loc="left")
    return figure


def _matrix(axes: Axes, labels: Sequence[str], counts: NDArray[np.int64]) -> None:
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap=colormaps["Blues"], vmin=0.0, vmax=1.0, aspect="auto")
    places = range(len(labels))
    axes.set_xticks(places, map(plain, labels), rotation=90 if len(labels) > 3 else 0)
    axes.set_yticks(places, map(plain, labels))
    axes.tick_params(labelsize=8 if len(labels) <= COUNTED else 6, length=0)
    axes.set_xlabel("answered", fontsize=8)
    axes.set_ylabel("right", fontsize=8)
    axes.spines[:].set_visible(False)
    if len(labels) > COUNTED:
        return
    for row, line in enumerate(counts):
        for column, count in enumerate(line):
            axes.text(column, row, f"{count:,}", ha="center", va="center", fontsize=8,
                      color="white" if shares[row, column] > 0.6 else INK)  # fmt: skip
