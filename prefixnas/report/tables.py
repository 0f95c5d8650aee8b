"""The tables of a run, and what `prefixnas show` prints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from prefixnas.base.estimates import NORMAL
from prefixnas.report.grid import Cell, Fitting, Grid, Number, Span, chance, facts, number
from prefixnas.report.progress import clock
from prefixnas.report.remarks import remarks
from prefixnas.run.evaluation import ARGMAX, AVERAGE, MIXTURE
from prefixnas.run.events import Evaluation, Start
from prefixnas.run.record import Record, evidence, final_probabilities, read_record
from prefixnas.run.result import Columns
from prefixnas.space.architecture import by_layer

Row = tuple[str, list[float | None]]


INTERVAL = "95 % interval ±"
"""The row that says how far the averages scatter with the examples."""

ON_TEST = (
    "on test: mean of the tasks that have a split test, which every run scored once at its end; "
    "nothing was chosen by it, and no difference is taken of it"
)
"""What stands below tables of several runs that have a column of that name."""


def score_table(columns: Columns, wide: bool = False) -> Grid:
    """Return the scores: a row per task and their average, a column per model.

    The best score of a row is bold; "-" stands where there is nothing to score, and a column of
    nothing else is left out. Behind them stands how far the 95 % interval reaches to either side,
    as examples scatter.

    Args:
        columns: The columns of a run.
        wide: Whether the interval stands in every cell, or in a row of its own for the averages.
    """
    columns = {label: column for label, column in columns.items() if column}
    rows: list[list[str | Span]] = []
    reaches = [interval_reaches(columns, name) for name, _ in score_rows(columns)]
    for (name, scores), spreads in zip(score_rows(columns), reaches, strict=True):
        best = best_of(scores)
        styles = ["bold" if index in best else "" for index in range(len(scores))]
        texts = [number(score, spread=spread if wide else None)
                 for score, spread in zip(scores, spreads, strict=True)]  # fmt: skip
        rows.append([name, *map(Span, texts, styles)])
    breaks = [len(rows) - 1]
    if not wide and any(spread is not None for spread in (reaches or [[]])[-1]):
        rows.append([INTERVAL, *map(number, reaches[-1])])
    return Grid(["task", *map(Number, columns)], rows, breaks)


def fitting_score_table(columns: Columns) -> Fitting:
    """Return the scores for a terminal: with the interval of every score if it is wide enough."""
    return Fitting([score_table(columns, wide=True), score_table(columns)])


def interval_reaches(columns: Columns, name: str) -> list[float | None]:
    """Return how far the interval of a row's scores reaches to either side, where it is known."""
    errors = [
        None if not column
        else column.get("standard_error") if name == AVERAGE
        else (column.get("standard_errors") or {}).get(name)
        for column in columns.values()
    ]  # fmt: skip
    return [None if error is None else NORMAL * error for error in errors]


def score_rows(columns: Columns) -> list[Row]:
    """Return the rows of the table: every task in order of appearance, then the average."""
    tasks = list(dict.fromkeys(t for c in columns.values() if c for t in c["task_scores"]))
    rows: list[Row] = [
        (task, [c["task_scores"].get(task) if c else None for c in columns.values()])
        for task in tasks
    ]
    if tasks:
        rows.append((AVERAGE, [c["score"] if c else None for c in columns.values()]))
    return rows


def best_of(scores: list[float | None]) -> set[int]:
    """Return the places of the highest score, as shown with three decimals; ties share it."""
    shown = [None if score is None else round(score, 3) for score in scores]
    there = [score for score in shown if score is not None]
    return {index for index, score in enumerate(shown) if there and score == max(there)}


def summary(record: Record) -> dict[str, str]:
    """Return the run in a few words: label to text, without what is not known."""
    steps = record.start("steps")
    if isinstance(steps, Mapping):
        steps = ", ".join(f"{key} {value}" for key, value in steps.items())
    begun = next(iter(record.of(Start)[-1:]), None)
    state = "finished" if record.finished else "not finished"
    known = {
        "state": state,
        "date": date(begun.began if begun else None),
        **(begun.about if begun else {}),
        "tasks": ", ".join(record.tasks()) or None,
        "weights": _weights(record.start("trained_parameters"), record.start("parameters")),
        "space": record.start("space"),
        "strategy": record.start("strategy"),
        "objective": record.start("objective"),
        "seed": record.start("seed"),
        "steps": steps,
        "time": clock(record.seconds()),
        "discretisation gap": _gap(record),
    }
    return {
        label: str(fact)
        for label, fact in known.items()
        if fact is not None and not isinstance(fact, (Mapping, list))
    }


def date(began: str | None) -> str | None:
    """Return `2026-03-01 14:05` from ISO 8601, or what else stands there."""
    return began and began[:16].replace("T", " ")


def _weights(trained: int | None, every: int | None) -> str | None:
    if trained is None:
        return None
    return f"{trained:,} trained" + (f", of {every:,} ({trained / every:.1%})" if every else "")


def _gap(record: Record) -> str | None:
    if record.gap() is None:
        return None
    error = record.differences().get((MIXTURE, ARGMAX), {}).get("standard_error")
    return number(record.gap(), "+.3f") + ("" if error is None else f" ± {NORMAL * error:.3f}")


def show(run_dir: Path) -> Group:
    """Return what `prefixnas show RUN` prints: summary, architecture, alphas, scores, warnings.

    What the scores are worth stands under them.

    Raises:
        UserError: No run folder, or a damaged file in it.
    """
    record = read_record(run_dir)
    tables: dict[str, Grid | Fitting] = {
        "Architecture": architecture_table(record),
        "Probabilities of the candidates, as last recorded": probability_table(record),
        "Scores on the validation split": fitting_score_table(record.columns()),
        "Scores on the test split": fitting_score_table(record.tested()),
    }
    parts: list[RenderableType] = [Text(record.name, "bold"), facts(summary(record).items())]
    for title, grid in tables.items():
        if grid.rows:
            parts += [Text(f"\n{title}", "bold"), grid]
    parts += map(Text, remarks(record))
    warnings = (Text(f"warning: {message}", "yellow") for message in record.warnings())
    return Group(*parts, *warnings)


def architecture_table(record: Record) -> Grid:
    """Return the chosen options: a row per layer, a column per key of a decision."""
    layers = by_layer(record.architecture or {})
    keys = list(dict.fromkeys(key for layer in layers.values() for key in layer))
    rows = [
        [layer or "all", *(options.get(key, "-") for key in keys)]
        for layer, options in layers.items()
    ]
    return Grid(["layer", *keys], rows)


def probability_table(record: Record) -> Grid:
    """Return the last recorded probabilities: a row per decision, with the chosen option bold.

    Where the search tested what its alphas rest on, with each decision's p by chance.
    """
    chosen: Mapping[str, str] = record.architecture or {}
    shares = evidence(record)
    rows: list[list[Cell]] = [
        [
            name,
            [_candidate(*pair, chosen.get(name)) for pair in options.items()],
            *([chance(shares.get(name))] if shares else []),
        ]
        for name, options in final_probabilities(record).items()
    ]
    return Grid(["decision", "candidates", *([Number("p by chance")] if shares else [])], rows)


def _candidate(option: str, probability: float, chosen: str | None) -> Span:
    if probability == 0:
        return Span(f"{option} pruned", "dim")
    return Span(f"{option} {probability:.3f}", "bold" if option == chosen else "")


def evaluation_table(record: Record) -> Grid:
    """Return every metric of every evaluation: a row per evaluation and task."""
    rows: list[list[Cell]] = []
    for event in record.of(Evaluation):
        errors = event.standard_errors or {}
        for task, metrics in event.scores.items():
            shown = [_metric(*pair) for pair in metrics.items()]
            reach = NORMAL * errors[task] if task in errors else None
            score = number(event.task_scores.get(task), ".4f", reach)
            rows.append([event.name, event.split, task, score, shown])
    return Grid(["model", "split", "task", Number("score"), "metrics"], rows)


def _metric(name: str, value: Any) -> Span:
    return Span(f"{name} {value:.4f}" if isinstance(value, (int, float)) else f"{name} {value}")


def timing_table(record: Record) -> Grid:
    """Return steps and time by phase."""
    rows = [
        [place, str(steps or "-"), clock(seconds), number(seconds / steps if steps else None)]
        for place, (steps, seconds) in record.timing().items()
    ]
    return Grid(["phase", *map(Number, ("steps", "time", "seconds per step"))], rows)
