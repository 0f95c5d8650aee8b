"""What a comparison leaves in its folder: tables, numbers, architectures, a plot, a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from prefixnas.base.files import write_csv, write_text
from prefixnas.compare.cells import Cell
from prefixnas.compare.comparison import Comparison
from prefixnas.compare.page import write_page
from prefixnas.compare.plot import comparison_figure
from prefixnas.compare.results import CellResult, read_cells
from prefixnas.compare.summary import summarise
from prefixnas.compare.tables import Tables, markdown
from prefixnas.report.plots.style import save_figure


def write_comparison(
    comparison: Comparison, cells: Sequence[Cell], out: Path
) -> tuple[list[CellResult], Tables]:
    """Write all tables, the plot and the page of a comparison, finished or not.

    Returns:
        What each run came to, and the rows of each space's table.
    """
    results = read_cells(cells)
    tables = summarise(comparison, results)
    write_csv(out / "runs.csv", [result.row() for result in results])
    write_csv(out / "summary.csv", [row.row() for rows in tables.values() for row in rows])
    write_text(out / "architectures.yaml", _architectures(results))
    write_text(out / "summary.md", markdown(tables))
    plot = out / "compute.png"
    if figure := comparison_figure(tables):
        save_figure(figure, plot)
    write_page(comparison, results, tables, out, plot if figure else None)
    return results, tables


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
