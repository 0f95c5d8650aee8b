"""The tables of a comparison, for a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from rich.console import Group, RenderableType
from rich.text import Text

from prefixnas.base.estimates import Difference, mean_and_spread
from prefixnas.compare.comparison import AVERAGE_RANDOM
from prefixnas.compare.summary import COMPARED_WITH, Summary
from prefixnas.report.grid import Grid, Number, in_markdown, number
from prefixnas.report.tables import ON_TEST

Tables = Mapping[str, Sequence[Summary]]

_SIGNS = {"above": ">", "below": "<", "within the spread": "~", "too few seeds": "?"}
LEGEND = (
    "Score: mean and standard deviation over all runs, on validation data that no search saw. "
    "Differences are paired by seed, with the relative one in brackets: > above and < below, by a "
    "95 % interval (Student's t, over seeds); ~ within the spread, so nothing can be concluded; "
    "? fewer than three seeds. The best hand-made module is the one that scored best here. "
    "Seconds and memory are of one run, as measured, with whatever else the machine did."
)


def space_table(rows: Sequence[Summary]) -> Grid:
    """Return the table of a space: a row per variant, what it is compared with before those."""
    retrained = any(row.retrained for row in rows)
    tested = has_tests(rows)
    titles = ["score", *["on test"] * tested, *(f"over {name}" for name in COMPARED_WITH)]
    if retrained:
        titles += ["trained anew", f"over {AVERAGE_RANDOM}"]
    titles += ["steps", "seconds", "memory", "parameters", "agreement"]
    refused = ["refused", *["-"] * (len(titles) - 1)]
    cells = [
        [row.label, *(_cells(row, tested, retrained) if row.refused is None else refused)]
        for row in rows
    ]
    kinds = [row.kind for row in rows]
    breaks = [n for n, pair in enumerate(pairwise(kinds), 1) if pair[0] != "search" == pair[1]]
    return Grid(["", *map(Number, titles)], cells, breaks)


def has_tests(rows: Sequence[Summary]) -> bool:
    """Tell whether there is a score on the split `test`: a task may have none."""
    return any(row.test[0] is not None for row in rows)


def _cells(row: Summary, tested: bool, retrained: bool) -> list[str]:
    texts = [_mean(row.mean, row.spread, len(row.runs), "failed" if row.failed else "-")]
    texts += [_mean(*row.test, len(row.runs))] * tested
    texts += [_difference(row.over.get(name)) for name in COMPARED_WITH]
    if retrained:
        texts.append(_mean(*mean_and_spread(row.retrained.values()), len(row.retrained)))
        texts.append(_difference(row.over_retrained.get(AVERAGE_RANDOM)))
    peak = max((run.peak_device_memory or run.peak_memory or 0 for run in row.runs), default=0)
    agreement = number(row.agreement, ".2f")
    if row.chance is not None:
        agreement += f" (chance {row.chance:.2f})"
    return [
        *texts,
        number(row.mean_of("steps"), ",.0f"),
        number(row.mean_of("seconds"), ",.0f"),
        f"{peak / 2**20:,.0f} MiB" if peak else "-",
        number(row.mean_of("parameters"), ",.0f"),
        agreement,
    ]


def render(tables: Tables) -> Group:
    """Return the tables for a terminal."""
    parts: list[RenderableType] = []
    for space, rows in tables.items():
        parts += [Text(f"\nspace {space}", "bold"), space_table(rows), *map(Text, remarks(rows))]
    return Group(*parts, Text(f"\n{LEGEND}", "dim"))


def markdown(tables: Tables) -> str:
    """Return the same as Markdown."""
    parts = ["# Comparison\n"]
    for space, rows in tables.items():
        parts += [f"## Space {in_markdown(space)}\n", space_table(rows).markdown()]
        parts += [*(f"- {in_markdown(line)}" for line in remarks(rows)), ""]
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
    return [*lines, ON_TEST] if has_tests(rows) else lines


def _sentence(difference: Difference) -> str:
    by = signed(difference.mean)
    if difference.count < 3:
        return f"{by} against the average random architecture on too few seeds to show anything"
    interval = f"95 % interval {signed(difference.low)} to {signed(difference.high)}"
    if difference.verdict == "within the spread":
        return f"no difference from the average random architecture can be told: {by}, {interval}"
    return f"{difference.verdict} the average random architecture: {by}, {interval}"


def _mean(mean: float | None, spread: float | None, count: int, without: str = "-") -> str:
    return without if mean is None else f"{number(mean, spread=spread)} (n={count})"


def _difference(difference: Difference | None) -> str:
    if difference is None:
        return "-"
    share = difference.relative
    relative = "" if share is None else f" ({round(100 * share, 1) + 0.0:+.1f} %)"
    return f"{_SIGNS[difference.verdict]} {signed(difference.mean)}{relative}"


def signed(number: float) -> str:
    """Return a difference as a cell shows it."""
    return f"{round(number, 3) + 0.0:+.3f}"  # no "-0.000"
