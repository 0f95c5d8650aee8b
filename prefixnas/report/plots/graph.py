"""Figures of graphs: one row per layer, operations left to right, branches in lanes below.

Figures are made without pyplot, so drawing leaves no global state behind.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import networkx as nx
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Patch
from matplotlib.path import Path as Line

from prefixnas.base.errors import UserError
from prefixnas.report.plots.style import BAND, FAINT, HUES, INK, plain, save_figure
from prefixnas.space.architecture import decision_key

if TYPE_CHECKING:
    Graph = nx.DiGraph[str]


# Sizes in inches.
_BOX, _LANE, _GAP, _SPACE, _MARGIN = 0.44, 0.68, 0.36, 0.34, 0.25
_CHARACTER, _SUM, _TRACK = 0.083, 0.16, 0.14


@dataclass(frozen=True)
class _Place:
    """Centre and half width of a node, and its row, in inches; y grows downwards."""

    x: float
    y: float
    half: float
    row: int


@dataclass(frozen=True)
class _Layout:
    """Where everything is, in inches.

    Attributes:
        half: Half width of a box.
        places: Nodes.
        spans: Top and bottom of each row.
        bottom: Where the rows end.
    """

    half: float
    places: Mapping[str, _Place]
    spans: Mapping[int, tuple[float, float]]
    bottom: float


def graph_figure(graph: Graph) -> Figure:
    """Draw a graph of `prefixnas.space.graph`."""
    layout, tracks = _layout(graph), _tracks(graph)
    keys = _decision_keys(graph)
    colours = {key: HUES[index % len(HUES)] for index, key in enumerate(keys)}
    notes: list[str] = graph.graph.get("notes", [])
    right = max(place.x + place.half for place in layout.places.values())
    width = max(
        right + _MARGIN + 0.2 + _TRACK * len(tracks),
        _MARGIN + sum(0.55 + _CHARACTER * len(key) for key in keys) + 1.6,
        2 * _MARGIN + _CHARACTER * max(map(len, notes), default=0),
    )
    below = layout.bottom + _MARGIN
    height = below + 0.22 * len(notes) + (0.35 if keys else 0)

    figure = Figure(figsize=(width, height), facecolor="white")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_axis_off()
    for row in layout.spans:
        _band(axes, graph, row, layout)
    _edges(axes, graph, layout, tracks)
    for node, place in layout.places.items():
        _node(axes, graph.nodes[node], place, colours)
    for number, line in enumerate(notes):
        place_y = below + 0.22 * number
        axes.text(_MARGIN, place_y, plain(line), fontsize=8.5, color=INK, va="center")
    if keys:
        _legend(axes, colours, (_MARGIN / width, 0.08 / height))
    return figure


def _layout(graph: Graph) -> _Layout:
    """Put the rows below each other, their nodes in columns and lanes."""
    rows: dict[int, list[str]] = {}
    for node in graph:
        rows.setdefault(graph.nodes[node]["row"], []).append(node)
    columns, lane = _columns(graph, rows), _lanes(graph, rows)
    longest = max(len(line) for node in graph for line in _lines(graph.nodes[node]["label"]))
    half = max(0.4, (longest * _CHARACTER + 0.24) / 2)
    pitch, left = 2 * half + _SPACE, _MARGIN + 0.2
    places: dict[str, _Place] = {}
    spans: dict[int, tuple[float, float]] = {}
    y = _MARGIN
    for row in sorted(rows):
        lanes = 1 + max(lane[node] for node in rows[row])
        titled = any(graph.nodes[node]["layer"] for node in rows[row])
        height = lanes * _LANE + (0.2 if titled else 0.0)
        spans[row] = (y, y + height)
        first = y + height - lanes * _LANE + _LANE / 2
        for node in rows[row]:
            wide = _SUM if graph.nodes[node]["kind"] == "sum" else half
            x = left + half + columns[node] * pitch
            places[node] = _Place(x, first + lane[node] * _LANE, wide, row)
        y += height + _GAP
    return _Layout(half, places, spans, y - _GAP)


def _legend(axes: Axes, colours: Mapping[str, str], corner: tuple[float, float]) -> None:
    handles = [Patch(facecolor=hue + "33", edgecolor=hue) for hue in colours.values()]
    fixed = Patch(facecolor="white", edgecolor=FAINT)
    axes.legend(
        [*handles, fixed],
        [*map(plain, colours), "fixed"],
        loc="lower left",
        bbox_to_anchor=corner,
        ncols=len(colours) + 1,
        frameon=False,
        fontsize=8.5,
        borderaxespad=0,
        borderpad=0,
        handlelength=1.4,
    )


def _decision_keys(graph: Graph) -> list[str]:
    names = (graph.nodes[node]["decision"] for node in graph)
    return list(dict.fromkeys(decision_key(name) for name in names if name))


def _lines(label: str) -> list[str]:
    return textwrap.wrap(label.replace("(", " (", 1), 18) if len(label) > 18 else [label]


def _columns(graph: Graph, rows: Mapping[int, list[str]]) -> dict[str, int]:
    """Return the column of each node: its depth among the nodes of its row, from 1; input 0."""
    columns: dict[str, int] = {"input": 0}
    for row, nodes in rows.items():
        for node in nx.topological_sort(graph.subgraph(nodes)):
            before = [
                columns[source]
                for source in graph.predecessors(node)
                if graph.nodes[source]["row"] == row
            ]
            if node != "input":
                columns[node] = max(before, default=0) + 1
    return columns


def _lanes(graph: Graph, rows: Mapping[int, list[str]]) -> dict[str, int]:
    """Return the lane of each node, without the lanes that its row leaves empty."""
    lanes = {}
    for nodes in rows.values():
        used = sorted({graph.nodes[node]["lane"] for node in nodes})
        lanes.update({node: used.index(graph.nodes[node]["lane"]) for node in nodes})
    return lanes


def _tracks(graph: Graph) -> dict[str, int]:
    """Number the nodes with an edge that passes by a whole row; each gets a track outside."""
    row = {node: graph.nodes[node]["row"] for node in graph}
    sources = [source for source, target in graph.edges if row[target] - row[source] > 1]
    return {source: index for index, source in enumerate(dict.fromkeys(sources), 1)}


def _band(axes: Axes, graph: Graph, row: int, layout: _Layout) -> None:
    """Shade a row that is a layer, and name it."""
    titles = {
        node: title
        for node, place in layout.places.items()
        if place.row == row and (title := graph.nodes[node]["layer"])
    }
    if not titles:
        return
    span, half = layout.spans[row], layout.half
    inside = [layout.places[node].x for node in titles]
    x = min(inside) - half - 0.1
    size = (max(inside) + half + 0.1 - x, span[1] - span[0])
    axes.add_patch(
        FancyBboxPatch(
            (x, span[0]), *size, boxstyle="round,pad=0,rounding_size=0.08", fc=BAND, ec="none"
        )
    )
    title = next(iter(titles.values()))
    axes.text(x + 0.1, span[0] + 0.15, plain(title), fontsize=8.5, color=FAINT, va="center")


def _node(axes: Axes, data: Mapping[str, str], place: _Place, colours: Mapping[str, str]) -> None:
    if data["kind"] == "sum":
        axes.add_patch(Circle((place.x, place.y), _SUM, fc="white", ec=INK, lw=1.1, zorder=3))
        axes.text(place.x, place.y, "+", ha="center", va="center", fontsize=12, zorder=4)
        return
    key = decision_key(data["decision"]) if data["decision"] else ""
    edge = colours[key] if key else FAINT
    ends = data["kind"] in ("input", "output")
    fill = INK if ends else colours[key] + "33" if key else "white"
    rounding = _BOX / 2 if ends or data["kind"] == "choice" else 0.06
    for face, line, order in (("white", "none", 3), (fill, INK if ends else edge, 4)):
        axes.add_patch(
            FancyBboxPatch(
                (place.x - place.half, place.y - _BOX / 2),
                2 * place.half,
                _BOX,
                boxstyle=f"round,pad=0,rounding_size={rounding}",
                fc=face,
                ec=line,
                lw=1.1,
                zorder=order,
            )
        )
    lines = _lines(data["label"])
    axes.text(
        place.x,
        place.y,
        plain("\n".join(lines)),
        ha="center",
        va="center",
        fontsize=9 if len(lines) < 3 else 7.5,
        linespacing=1.0,
        style="italic" if data["kind"] == "choice" else "normal",
        color="white" if ends else INK,
        zorder=5,
    )


def _edges(axes: Axes, graph: Graph, layout: _Layout, tracks: Mapping[str, int]) -> None:
    places, ends = layout.places, dict[int, float]()
    for place in places.values():
        ends[place.row] = max(ends.get(place.row, 0.0), place.x + place.half)
    for source, target in graph.edges:
        a, b = places[source], places[target]
        start, end = (a.x + a.half, a.y), (b.x - b.half, b.y)
        if a.row == b.row:
            points = _within(start, end, merge=graph.in_degree(target) > 1)
        else:
            # Down on the right of the row, back in the gap above the target's row. An edge past
            # a whole row runs outside of all rows, on its source's own track.
            out, back = ends[a.row] + _SPACE / 2, end[0] - _SPACE / 2
            gap = layout.spans[b.row][0] - _GAP / 2
            if b.row - a.row > 1:
                out = max(ends.values()) + _SPACE / 2 + tracks[source] * _TRACK
                gap -= 0.06
            points = [start, (out, a.y), (out, gap), (back, gap), (back, b.y), end]
        line = Line(points)
        axes.add_patch(
            FancyArrowPatch(
                path=line,
                arrowstyle="-|>,head_length=3.2,head_width=1.8",
                lw=1.0,
                color="#4a4f57",
                joinstyle="round",
                shrinkA=0,
                shrinkB=0,
                zorder=2,
            )
        )


def _within(
    start: tuple[float, float], end: tuple[float, float], merge: bool
) -> list[tuple[float, float]]:
    """Route an edge inside of a row: on its branch's own lane, apart from one short step."""
    if start[1] == end[1]:
        return [start, end]
    bend = end[0] - _SPACE / 2 if merge else start[0] + _SPACE / 2
    return [start, (bend, start[1]), (bend, end[1]), end]


_SUFFIXES = (".png", ".svg")


def draw(graph: Graph, path: Path) -> None:
    """Draw a graph of this module, one row per layer, as PNG or SVG by the suffix of `path`.

    Raises:
        UserError: Another suffix, or a file that cannot be written.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise UserError(f"{path}: cannot draw to {path.suffix!r} (allowed: {', '.join(_SUFFIXES)})")
    save_figure(graph_figure(graph), path)
