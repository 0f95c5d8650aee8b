"""How figures look, and how they are written."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from prefixnas.base.files import write_bytes

#: Hues that stay apart for colour-blind readers (Okabe and Ito), black left out.
HUES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D1F", "#666666")
INK, FAINT, BAND, LINE = "#222222", "#8a8f98", "#f4f5f7", "#e3e5e8"


def hue(index: int) -> str:
    """Return the colour of the n-th thing; after the last of `HUES` comes the first again."""
    return HUES[index % len(HUES)]


def dash(index: int) -> str:
    """Return the line style of the n-th thing, which tells apart those of one hue."""
    return ("-", "--", ":", "-.")[index // len(HUES) % 4]


def plain(text: str) -> str:
    """Return `text` so that matplotlib shows it as it is: a dollar sign would start a formula."""
    return text.replace("$", r"\$")


def new_figure(width: float, height: float) -> Figure:
    """Return a white figure whose parts make room for each other; sizes are in inches."""
    return Figure((width, height), layout="constrained", facecolor="white")


def new_panels(
    count: int, across: int, tall: float, more: float = 0.0, *,
    width: float = 9.0, share: str = "", under: str = "",
) -> tuple[Figure, list[Axes]]:  # fmt: skip
    """Return a new figure and its panels, row by row.

    Args:
        count: How many panels.
        across: How many of them stand side by side.
        tall: Height of a row of panels, in inches.
        more: What the figure is higher than its rows, in inches.
        width: Of the figure, in inches.
        share: Axes that all panels have in common: "x", "y" or none.
        under: Label of the x axes, where only the lowest panels have one, and numbers.
    """
    down = -(-count // across)
    figure = new_figure(width, tall * down + more)
    panels: list[Axes] = []
    for index in range(count):
        common = {f"share{share}": panels[0]} if share and panels else {}
        panels.append(figure.add_subplot(down, across, 1 + index, **common))
        if under and index + across < count:
            panels[-1].tick_params(axis="x", labelbottom=False)
        else:
            panels[-1].set_xlabel(under, fontsize=8)
    return figure, panels


def tidy(
    axes: Axes, title: str = "", *, x: str = "", y: str = "", grid: Literal["x", "y", "both"] = "y"
) -> None:
    """Give axes their look: no frame, small numbers, lines across `grid`, what it is and shows."""
    if title:
        axes.set_title(plain(title), fontsize=9, loc="left")
    axes.set_xlabel(x or axes.get_xlabel(), fontsize=8)
    axes.set_ylabel(y, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color=LINE, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, which="both")


def add_legend(
    figure: Figure, columns: int, lines: Sequence[Artist] = (), where: str = "lower center"
) -> None:
    """Name beside the panels what has a label, or only some of it."""
    named: dict[str, Any] = {"handles": lines} if lines else {}
    look: dict[str, Any] = {"loc": f"outside {where}", "fontsize": 8, "frameon": False}
    figure.legend(ncols=columns, **named, **look)


def spreads_far(values: NDArray[Any]) -> bool:
    """Tell whether an axis is better logarithmic."""
    return bool(values.min() > 0 and values.max() > 20 * values.min())


def scale(axes: Axes, logarithmic: bool) -> None:
    """Make the y axis logarithmic, or let it begin at 0."""
    if logarithmic:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)


def save_figure(figure: Figure, path: Path, dots: int = 150) -> None:
    """Write a figure in the format of the path's suffix, whole or not at all.

    Raises:
        UserError: The file cannot be written.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix.lower().removeprefix("."), dpi=dots)
    write_bytes(path, buffer.getvalue())


def save_figures(folder: Path, figures: Mapping[str, Figure | None]) -> dict[str, Path]:
    """Write figures as PNG; one that is None is left out, and an older one of its name removed.

    Raises:
        UserError: A file cannot be written.
    """
    paths = {name: folder / f"{name}.png" for name in figures}
    for name, figure in figures.items():
        if figure is None:
            paths.pop(name).unlink(missing_ok=True)
        else:
            save_figure(figure, paths[name])
    return paths
