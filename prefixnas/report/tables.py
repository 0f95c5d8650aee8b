"""A run as text: its table of scores and what `prefixnas show` prints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from prefixnas.report.progress import clock
from prefixnas.run.evaluation import AVERAGE
from prefixnas.run.record import Columns, Record, check_columns, final_probabilities, read_record
from prefixnas.space.architecture import by_layer

Row = tuple[str, list[float | None]]


def table(source: Path | Mapping[str, Any]) -> Table:
    """Return the scores per task: a row per task and their average, a column per model.

    The best score of a row is bold; "-" stands where there is nothing to score.

    Args:
        source: A run folder, finished or not, or the content of its `result.json`.

    Raises:
        UserError: No run folder, or a damaged file in it.
    """
    if isinstance(source, Path):
        return score_table(read_record(source).columns())
    return score_table(check_columns(source, "result"))


def score_table(columns: Columns) -> Table:
    """Return the table of `columns`; see `table`."""
    grid = Table(box=SIMPLE, header_style="bold", pad_edge=False)
    grid.add_column(Text("task"))
    for label in columns:
        grid.add_column(Text(label), justify="right")
    for name, scores in score_rows(columns):
        best = best_of(scores)
        cells = [
            Text("-" if score is None else f"{score:.3f}", "bold" if index in best else "")
            for index, score in enumerate(scores)
        ]
        if name == AVERAGE:
            grid.add_section()
        grid.add_row(Text(name), *cells)
    return grid


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
    state = "finished" if record.finished else "not finished"
    facts = {
        "state": state,
        "space": record.start("space"),
        "strategy": record.start("strategy"),
        "objective": record.start("objective"),
        "seed": record.start("seed"),
        "steps": steps,
        "time": clock(record.seconds()),
        "discretisation gap": None if record.gap() is None else f"{record.gap():+.3f}",
    }
    return {
        label: str(fact)
        for label, fact in facts.items()
        if fact is not None and not isinstance(fact, (Mapping, list))
    }


def show(run_dir: Path) -> Group:
    """Return what `prefixnas show RUN` prints: summary, architecture, alphas, scores, warnings.

    Raises:
        UserError: No run folder, or a damaged file in it.
    """
    record = read_record(run_dir)
    parts: list[RenderableType] = [Text(record.name, "bold")]
    facts = Table.grid(padding=(0, 2))
    for label, text in summary(record).items():
        facts.add_row(Text(label, "dim"), Text(text))
    parts.append(facts)
    if record.architecture:
        parts += [_title("Architecture"), _architecture(record.architecture)]
    ranking = final_probabilities(record)
    if ranking:
        parts += [
            _title("Probabilities of the candidates, as last recorded"),
            _ranking(record, ranking),
        ]
    columns = record.columns()
    if any(columns.values()):
        parts += [_title("Scores on the validation split"), score_table(columns)]
    for message in record.warnings():
        parts.append(Text(f"warning: {message}", "yellow"))
    return Group(*parts)


def _title(text: str) -> Text:
    return Text(f"\n{text}", "bold")


def _architecture(choices: Mapping[str, str]) -> Table:
    layers = by_layer(choices)
    keys = list(dict.fromkeys(key for layer in layers.values() for key in layer))
    grid = Table(box=None, header_style="dim", pad_edge=False)
    grid.add_column(Text("layer"))
    for key in keys:
        grid.add_column(Text(key))
    for layer, options in layers.items():
        cells = [Text(options.get(key, "-")) for key in keys]
        grid.add_row(Text(layer or "all", "dim"), *cells)
    return grid


def _ranking(record: Record, ranking: Mapping[str, Mapping[str, float]]) -> Table:
    chosen: Mapping[str, str] = record.architecture or {}
    grid = Table.grid(padding=(0, 2))
    for decision, options in ranking.items():
        line = Text()
        for index, (option, probability) in enumerate(options.items()):
            style = "dim" if probability == 0 else "bold" if option == chosen.get(decision) else ""
            value = "pruned" if probability == 0 else f"{probability:.3f}"
            line.append("  " if index else "").append(f"{option} {value}", style)
        grid.add_row(Text(decision, "dim"), line)
    return grid
