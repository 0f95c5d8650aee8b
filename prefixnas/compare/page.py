"""A comparison as a page, and in the file that holds every number of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from prefixnas.base.files import write_text
from prefixnas.compare.comparison import Comparison
from prefixnas.compare.results import CellResult
from prefixnas.compare.summary import COMPARED_WITH, Summary
from prefixnas.compare.tables import LEGEND, Tables, remarks, signed, space_table
from prefixnas.report.grid import Cell, Grid, Number, Span, number
from prefixnas.report.page import details, image, page, section
from prefixnas.report.progress import by_key
from prefixnas.report.tables import best_of, date
from prefixnas.run.record import read_record

MeanAndSpread = tuple[float | None, float | None]

PAGE, NUMBERS = "report.html", "summary.json"
PLOT = "Score against the seconds of a run, with the standard deviation over the runs"


def write_page(
    comparison: Comparison,
    results: Sequence[CellResult],
    tables: Tables,
    out: Path,
    plot: Path | None,
) -> None:
    """Write `summary.json`, and `report.html`, which shows what is in it.

    Args:
        comparison: What is compared.
        results: What each run came to.
        tables: The rows by space.
        out: The comparison's folder.
        plot: The plot, if there is one.

    Raises:
        UserError: A file cannot be written.
    """
    facts = _facts(comparison, results)
    data = {
        "about": facts,
        "spaces": {space: [row.data() for row in rows] for space, rows in tables.items()},
        "runs": [vars(result) for result in results],
    }
    write_text(out / NUMBERS, json.dumps(data, indent=1) + "\n")
    sections = [section(f"Space {space}", *_of_space(rows)) for space, rows in tables.items()]
    shown = [image(PLOT, plot.read_bytes())] if plot is not None else []
    every = run_table(results)
    text = page(
        "Comparison",
        facts,
        *sections,
        section("What it costs", *shown),
        section("Runs", details(f"{len(every.rows)} runs", every.html())),
        section("How to read the tables", f"<p>{escape(LEGEND)}</p>"),
    )
    write_text(out / PAGE, text)


def _facts(comparison: Comparison, results: Sequence[CellResult]) -> dict[str, str]:
    finished = [result for result in results if result.state == "finished"]
    tasks = dict.fromkeys(task for result in finished for task in result.task_scores or {})
    about = read_record(Path(finished[0].folder)).start("about") if finished else {}
    known = {
        "date": date(min((r.began for r in finished if r.began), default=None)),
        **(about or {}),
        "tasks": ", ".join(tasks) or None,
        "strategies": ", ".join(variant.label for variant in comparison.variants),
        "seeds": ", ".join(map(str, comparison.settings.seeds)),
        "budget": f"{comparison.settings.budget:,} steps",
        "runs": f"{len(finished)} of {len(results)} finished",
    }
    return {label: fact for label, fact in known.items() if fact is not None}


def _of_space(rows: Sequence[Summary]) -> list[str]:
    said = "".join(f"<li>{escape(line)}</li>" for line in remarks(rows))
    return [
        space_table(rows).html(),
        f"<ul>{said}</ul>" if said else "",
        details(
            "Scores by task, with the standard deviation over runs",
            task_table({row.label: row.task_scores for row in rows}).html(),
        ),
        details(
            "The same on the split test",
            task_table({row.label: row.task_tests for row in rows}).html(),
        ),
        details("Differences with their 95 % intervals", difference_table(rows).html()),
        details("Architectures that were found", architecture_table(rows).html()),
    ]


def task_table(by_variant: Mapping[str, Mapping[str, MeanAndSpread]]) -> Grid:
    """Return the scores by task: a row per task, a column per variant; the best one is bold."""
    there = {label: scores for label, scores in by_variant.items() if scores}
    tasks = list(dict.fromkeys(task for scores in there.values() for task in scores))
    lines: list[list[Cell]] = []
    for task in tasks:
        found = [scores.get(task, (None, None)) for scores in there.values()]
        best = best_of([mean for mean, _ in found])
        texts = [number(mean, spread=spread) for mean, spread in found]
        cells = [Span(text, "bold" * (index in best)) for index, text in enumerate(texts)]
        lines.append([task, *cells])
    return Grid(["task", *map(Number, there)], lines)


def difference_table(rows: Sequence[Summary]) -> Grid:
    """Return every difference from a reference with its interval, and how many seeds it is of."""
    lines: list[list[Cell]] = []
    for row in rows:
        for name in COMPARED_WITH:
            if (less := row.over.get(name)) is not None:
                sure = less.count > 1
                interval = f"{signed(less.low)} to {signed(less.high)}" if sure else "-"
                lines.append([row.label, name, signed(less.mean), interval, str(less.count),
                              less.verdict])  # fmt: skip
    titles = ["", "over", Number("difference"), Number("95 % interval"), Number("seeds"), "verdict"]
    return Grid(titles, lines)


def architecture_table(rows: Sequence[Summary]) -> Grid:
    """Return what every run found: the options in the order of the layers, by key."""
    lines: list[list[Cell]] = []
    for row in rows:
        for run in row.runs:
            if run.architecture:
                taken = by_key(run.architecture)
                shown = [Span(f"{key}: {', '.join(options)}") for key, options in taken.items()]
                lines.append([row.label, str(run.run_seed), number(run.score), shown])
    return Grid(["", Number("seed"), Number("score"), "architecture"], lines)


def run_table(results: Sequence[CellResult]) -> Grid:
    """Return a row per run."""
    lines: list[list[Cell]] = [
        [
            result.space,
            result.label,
            result.kind,
            str(result.run_seed),
            result.state if result.reason is None else f"{result.state}: {result.reason}",
            number(result.score, ".4f"),
            number(result.steps, ",.0f"),
            number(result.seconds, ",.0f"),
            number(result.parameters, ",.0f"),
        ]
        for result in results
    ]
    numbers = map(Number, ("score", "steps", "seconds", "parameters"))
    return Grid(["space", "variant", "kind", Number("seed"), "state", *numbers], lines)
