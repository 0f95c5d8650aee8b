"""Writing a table, finished or not: Markdown, CSV, LaTeX and a plot; and what a terminal shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from peml.tables.grids import (
    LEGEND,
    PAPER_AVERAGE,
    has_tests,
    paper_grid,
    paper_title,
    remarks,
    table_grid,
)
from peml.tables.latex import latex
from peml.tables.plan import Table
from peml.tables.plot import table_figure
from peml.tables.summary import RowSummary, summarise
from prefixnas.base.files import write_csv, write_text
from prefixnas.base.locks import LOCK, try_lock, wait_for_lock
from prefixnas.report.grid import in_markdown
from prefixnas.report.plots.style import save_figure

NAME = "table"
NESTED = ("tasks", "metrics", "tests")
"""What a record holds by task."""


def write_soon(table: Table, out: Path) -> None:
    """Write what is finished so far, unless another process does so now."""
    if (lock := try_lock(out / LOCK)) is not None:
        with lock:
            _write(table, out, {})


def write_table(table: Table, out: Path, failed: Mapping[str, str]) -> list[RowSummary]:
    """Write the table; return its rows, which `render` and `document` take.

    Args:
        table: The table.
        out: The folder of its runs.
        failed: Why rows failed, by their labels.

    Raises:
        UserError: A file cannot be written, or a record is damaged.
    """
    with wait_for_lock(out / LOCK):
        return _write(table, out, failed)


def _write(table: Table, out: Path, failed: Mapping[str, str]) -> list[RowSummary]:
    rows = summarise(table, out)
    write_csv(out / f"{NAME}.csv", [_numbers(table, row) for row in rows])
    write_csv(out / "runs.csv", list(run_rows(table, out)))
    write_text(out / f"{NAME}.md", markdown(table, rows, failed))
    write_text(out / f"{NAME}.tex", in_latex(table, rows, failed))
    if figure := table_figure(rows, table.file.title):
        save_figure(figure, out / f"{NAME}.png")
    return rows


def document(
    table: Table, rows: Sequence[RowSummary], failed: Mapping[str, str]
) -> dict[str, object]:
    """Return the table for programs: a row's numbers are those of `table.csv`."""
    return {
        "title": table.file.title,
        "rows": [_numbers(table, row) for row in rows],
        "remarks": remarks(table, rows, failed),
        "failed": dict(failed),
    }


def render(table: Table, rows: Sequence[RowSummary], failed: Mapping[str, str]) -> RenderableType:
    """Return the table for a terminal."""
    parts: list[RenderableType] = [Text(table.file.title, "bold")] if table.file.title else []
    parts.append(table_grid(table, rows))
    parts += [Text(line) for line in remarks(table, rows, failed)]
    if (paper := paper_grid(table.paper)) is not None:
        parts += [Text(f"\n{paper_title(table.paper)}", "bold"), paper]
    return Group(*parts, Text(f"\n{LEGEND}", "dim"))


def markdown(table: Table, rows: Sequence[RowSummary], failed: Mapping[str, str]) -> str:
    """Return the table as Markdown."""
    parts = [f"# {in_markdown(table.file.title)}\n"] if table.file.title else []
    parts.append(table_grid(table, rows).markdown())
    parts += [f"- {in_markdown(line)}" for line in remarks(table, rows, failed)]
    if (paper := paper_grid(table.paper)) is not None:
        parts += [f"\n## {in_markdown(paper_title(table.paper))}\n", paper.markdown()]
    return "\n".join([*parts, "", LEGEND, ""])


def in_latex(table: Table, rows: Sequence[RowSummary], failed: Mapping[str, str]) -> str:
    """Return the table as LaTeX, the paper's numbers as one of their own."""
    parts = [latex(table_grid(table, rows), table.file.title, remarks(table, rows, failed))]
    if (paper := paper_grid(table.paper)) is not None:
        parts.append(latex(paper, paper_title(table.paper)))
    return "\n".join(parts)


def _numbers(table: Table, row: RowSummary) -> dict[str, object]:
    """Return a line of `table.csv`: a row's numbers without rounding."""
    line: dict[str, object] = {"row": row.label, "rates x": row.factor, "seeds": len(row.records)}
    for column in table.columns:
        line[column.name], line[f"{column.name} sd"] = row.of(column.name)
    line["average"], line["average sd"] = row.average
    if has_tests(table):
        line["on test"], line["on test sd"] = row.test
    for label, found in row.over.items():
        line[f"minus {label}"] = None if found is None else found.mean
        line[f"minus {label}, low"] = None if found is None else found.low
        line[f"minus {label}, high"] = None if found is None else found.high
    for name in ("weights", "weights_in_use", "saved_bytes", "seconds_a_step"):
        line[name] = row.mean_of(name)
    return {**line, PAPER_AVERAGE: row.of_paper}


def run_rows(table: Table, out: Path) -> Iterator[dict[str, object]]:
    """Yield a line of `runs.csv` for every finished run, those that tried rates among them."""
    for row in table.rows:
        cells = table.trials(row)
        if (factor := table.factor(row, out)) is not None:
            cells += table.runs(row, factor)
        for cell in cells:
            if (record := cell.record(out)) is not None:
                trial = table.tries_rates(cell)
                named = {"row": row.label, "rates x": cell.factor, "seed": cell.seed}
                scores = {column.name: record.tasks.get(column.name) for column in table.columns}
                rest = {k: v for k, v in vars(record).items() if k not in NESTED}
                tests = {"on test": record.test} if has_tests(table) else {}
                yield {**named, "trial": trial, "steps": cell.steps, **scores, **rest, **tests}
