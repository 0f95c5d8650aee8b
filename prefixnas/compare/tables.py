"""A comparison as it is shown: on the terminal, as Markdown, as CSV, as a list of architectures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from rich.box import SIMPLE
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from prefixnas.base.estimates import Difference, mean_and_spread
from prefixnas.base.files import write_csv, write_text
from prefixnas.compare.cells import Cell
from prefixnas.compare.comparison import AVERAGE_RANDOM, Comparison
from prefixnas.compare.plot import comparison_figure
from prefixnas.compare.results import CellResult, read_cells
from prefixnas.compare.summary import HAND_MADE, RANDOM_SEARCH, Summary, summarise
from prefixnas.report.plots.style import save_figure

Tables = Mapping[str, Sequence[Summary]]

_SIGNS = {"above": ">", "below": "<", "within the spread": "~", "too few seeds": "?"}
LEGEND = (
    "Score: mean and standard deviation over all runs, on validation data that no search saw. "
    "Differences are paired by seed, with the relative one in brackets: > above and < below, by a "
    "95 % interval (Student's t, over seeds); ~ within the spread, so nothing can be concluded; "
    "? fewer than three seeds. The best hand-made module is the one that scored best here. "
    "Seconds and memory are of one run, as measured, with whatever else the machine did."
)


def write_comparison(
    comparison: Comparison, cells: Sequence[Cell], out: Path
) -> tuple[list[CellResult], RenderableType]:
    """Write all tables and the plot of a comparison, finished or not.

    Returns:
        What each run came to, and the tables for the terminal.
    """
    results = read_cells(cells)
    tables = summarise(comparison, results)
    write_csv(out / "runs.csv", [result.row() for result in results])
    write_csv(out / "summary.csv", [row.row() for rows in tables.values() for row in rows])
    write_text(out / "architectures.yaml", _architectures(results))
    write_text(out / "summary.md", markdown(tables))
    if figure := comparison_figure(tables):
        save_figure(figure, out / "compute.png")
    return results, render(tables)


def headings(rows: Sequence[Summary]) -> list[str]:
    """Return the titles of a table's columns."""
    titles = ["", "score", f"over {AVERAGE_RANDOM}", f"over {RANDOM_SEARCH}", f"over {HAND_MADE}"]
    if any(row.retrained for row in rows):
        titles += ["trained anew", f"over {AVERAGE_RANDOM}"]
    return [*titles, "steps", "seconds", "memory", "parameters", "agreement"]


def cells_of(row: Summary, rows: Sequence[Summary]) -> list[str]:
    """Return a row of a table as texts, under `headings`."""
    if row.refused is not None:
        return [row.label, "refused", *["-"] * (len(headings(rows)) - 2)]
    scores = _mean(row.mean, row.spread, len(row.runs), row.failed)
    names = (AVERAGE_RANDOM, RANDOM_SEARCH, HAND_MADE)
    texts = [row.label, scores, *(_difference(row.over.get(name)) for name in names)]
    if any(other.retrained for other in rows):
        texts += [_mean(*mean_and_spread(row.retrained.values()), len(row.retrained), 0)]
        texts += [_difference(row.over_retrained.get(AVERAGE_RANDOM))]
    peak = max((run.peak_device_memory or run.peak_memory or 0 for run in row.runs), default=0)
    agreement = "-"
    if row.agreement is not None and row.chance is not None:
        agreement = f"{row.agreement:.2f} (chance {row.chance:.2f})"
    return [
        *texts,
        _whole(row.mean_of("steps")),
        _whole(row.mean_of("seconds")),
        f"{peak / 2**20:,.0f} MiB" if peak else "-",
        _whole(row.mean_of("parameters")),
        agreement,
    ]


def render(tables: Tables) -> Group:
    """Return the tables for a terminal."""
    parts: list[RenderableType] = []
    for space, rows in tables.items():
        parts.append(Text(f"\nspace {space}", "bold"))
        grid = Table(box=SIMPLE, header_style="bold", pad_edge=False)
        for index, title in enumerate(headings(rows)):
            grid.add_column(Text(title), justify="right" if index else "left")
        kind = rows[0].kind if rows else ""
        for row in rows:
            if row.kind == "search" and kind != "search":
                grid.add_section()
            kind = row.kind
            grid.add_row(*map(Text, cells_of(row, rows)))
        parts.append(grid)
        parts += [Text(line) for line in remarks(rows)]
    return Group(*parts, Text(f"\n{LEGEND}", "dim"))


def markdown(tables: Tables) -> str:
    """Return the same as Markdown."""
    parts = ["# Comparison\n"]
    for space, rows in tables.items():
        titles = headings(rows)
        lines = [titles, ["---"] * len(titles), *(cells_of(row, rows) for row in rows)]
        parts.append(f"## Space {space}\n")
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n")
        parts += [f"- {line}" for line in remarks(rows)]
        parts.append("")
    return "\n".join([*parts, LEGEND, ""])


def remarks(rows: Sequence[Summary]) -> list[str]:
    """Return what has to be said of each variant, a sentence a line."""
    lines = []
    for row in rows:
        if row.refused is not None:
            lines.append(f"{row.label}: refused: {row.refused}")
        elif row.failed:
            lines.append(f"{row.label}: {row.failed} of its runs failed, see runs.csv")
        difference = row.over.get(AVERAGE_RANDOM)
        if row.kind == "search" and difference is not None:
            lines.append(f"{row.label}: {_sentence(difference)}")
    return lines


def _sentence(difference: Difference) -> str:
    by = _signed(difference.mean)
    if difference.count < 3:
        return f"{by} against the average random architecture on too few seeds to show anything"
    interval = f"95 % interval {_signed(difference.low)} to {_signed(difference.high)}"
    if difference.verdict == "within the spread":
        return f"no difference from the average random architecture can be told: {by}, {interval}"
    return f"{difference.verdict} the average random architecture: {by}, {interval}"


def _mean(mean: float | None, sd: float | None, runs: int, failed: int) -> str:
    if mean is None:
        return "failed" if failed else "-"
    deviation = "" if sd is None else f" ± {sd:.3f}"
    return f"{mean:.3f}{deviation} (n={runs})"


def _difference(difference: Difference | None) -> str:
    if difference is None:
        return "-"
    relative = (
        ""
        if difference.relative is None
        else f" ({round(100 * difference.relative, 1) + 0.0:+.1f} %)"
    )
    return f"{_SIGNS[difference.verdict]} {_signed(difference.mean)}{relative}"


def _signed(number: float) -> str:
    return f"{round(number, 3) + 0.0:+.3f}"  # no "-0.000"


def _whole(number: float | None) -> str:
    return "-" if number is None else f"{number:,.0f}"


def _architectures(results: Sequence[CellResult]) -> str:
    """Return all architectures, by space and variant."""
    found: dict[str, dict[str, list[object]]] = {}
    for result in results:
        if result.architecture is not None and result.kind != "retrained":
            entry = {
                "seed": result.run_seed,
                "score": result.score,
                "choices": dict(result.architecture),
            }
            found.setdefault(result.space, {}).setdefault(result.label, []).append(entry)
    return yaml.safe_dump(found, sort_keys=False)
