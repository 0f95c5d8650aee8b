"""A table as it is shown: the grid of what was measured, and that of the paper's own numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from peml.tables.file import Paper
from peml.tables.plan import Table, count
from peml.tables.summary import Measured, RowSummary
from prefixnas.base.estimates import Difference
from prefixnas.report.grid import Grid, Number, number
from prefixnas.report.tables import ON_TEST

MIB = 2**20

PAPER_AVERAGE = "the paper's average"

LEGEND = (
    "Scores are on validation data, which chose nothing: mean and standard deviation over the "
    "seeds. A difference is that of the averages, paired by seed, ± its 95 % interval (Student's "
    "t); it tells something where the interval leaves 0 out. Weights: numbers that train; in use: "
    "those that a pass of one task takes at most. Saved: the most that a training step keeps for "
    "its backward passes, of a first batch that all rows have alike. Seconds a step are as "
    "measured, with whatever else the machine did."
)


def table_grid(table: Table, rows: Sequence[RowSummary]) -> Grid:
    """Return the table: a row for each row of the file, a column for each task."""
    tasks = [column.name for column in table.columns]
    papers = any(row.of_paper is not None for row in rows)
    tested = has_tests(table)
    titles = [*tasks, "average", *["on test"] * tested]
    titles += [f"minus {label}" for label in table.file.against]
    titles += [PAPER_AVERAGE] if papers else []
    titles += ["weights", "in use", "s a step", "saved MiB", "rates x", "seeds"]
    return Grid(
        ["", *map(Number, titles)],
        [[row.label, *_scores(row, tasks, tested, papers), *_costs(row)] for row in rows],
    )


def has_tests(table: Table) -> bool:
    """Tell whether a task of the table has a split `test`."""
    return any("test" in column.counts for column in table.columns)


def _scores(row: RowSummary, tasks: Sequence[str], tested: bool, papers: bool) -> list[str]:
    cells = [_mean(*row.of(task)) for task in tasks]
    return [
        *cells,
        _mean(*row.average),
        *([_mean(*row.test)] if tested else []),
        *(difference(found) for found in row.over.values()),
        *([of_paper(row.of_paper)] if papers else []),
    ]


def _costs(row: RowSummary) -> list[str]:
    saved = row.mean_of("saved_bytes")
    return [
        number(row.mean_of("weights"), ",.0f"),
        number(row.mean_of("weights_in_use"), ",.0f"),
        number(row.mean_of("seconds_a_step"), ".3g"),
        number(None if saved is None else saved / MIB, ",.1f"),
        "-" if row.factor is None else f"{row.factor:g}",
        str(len(row.records)),
    ]


def _mean(mean: float | None, spread: float | None) -> str:
    return number(mean, spread=spread)


def difference(found: Difference | None) -> str:
    """Return a difference with the half of its interval: `+0.022 ± 0.040`."""
    if found is None:
        return "-"
    half = found.high - found.mean
    shown = f"{round(found.mean, 3) + 0.0:+.3f}"  # no "-0.000"
    return f"{shown} ± {half:.3f}" if math.isfinite(half) else shown


def paper_grid(paper: Paper) -> Grid | None:
    """Return the paper's own numbers; None: there are none."""
    if not paper.rows:
        return None
    return Grid(
        ["", *map(Number, paper.columns)],
        [[label, *map(of_paper, numbers)] for label, numbers in paper.rows.items()],
    )


def paper_title(paper: Paper) -> str:
    """Return what stands above the paper's numbers."""
    model = f" ({paper.model})" if paper.model else ""
    return f"The paper's own numbers{model}: nothing of this was measured here"


def of_paper(value: Measured) -> str:
    """Return a number of the paper as it gives it."""
    if value is None or isinstance(value, str):
        return value or "-"
    return f"{value:.3f}" if abs(value) < 1 else f"{value:g}"


def remarks(table: Table, rows: Sequence[RowSummary], failed: Mapping[str, str]) -> list[str]:
    """Return what has to be said of a table, a sentence a line."""
    file, counted = table.file, count(table)
    lines = [f"{label}: failed: {why}" for label, why in failed.items()]
    lines += [f"{label}: left out: {why}" for label, why in file.left_out.items()]
    rates = ", ".join(f"{rate:g}" for rate in file.rates)
    if counted["trials"]:
        lines.append(
            f"Each row's own learning rates were tried times {rates}, on seed {file.trial_seed}, "
            f"and the best on the selection split was taken: {counted['trials']} runs beside the "
            f"{counted['runs']} of the table"
        )
        lines += _short_trials(table)
    if edge := [row.label for row in rows if row.edge]:
        lines.append(f"The best rate lies at the edge of what was tried: {', '.join(edge)}")
    if has_tests(table):
        lines.append(ON_TEST)
    missing = sum(len(file.seeds) - len(row.records) for row in rows)
    if missing:
        lines.append(f"Not finished: {missing} of {counted['runs']} runs")
    return lines


def _short_trials(table: Table) -> list[str]:
    steps, tried = table.rows[0].values["steps"], table.file.trial_steps
    if tried is None or tried >= steps:
        return []
    return [f"They were tried over {tried} of {steps} steps: short trials prefer fast rates"]
