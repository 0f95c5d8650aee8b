"""The report of a run: one HTML file with everything inside, no scripts, nothing from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import yaml

from prefixnas.base.errors import UserError
from prefixnas.base.files import write_text
from prefixnas.report.page import details, grid, image, page, section
from prefixnas.report.plots.run import TITLES, draw_record
from prefixnas.report.plots.trials import tried
from prefixnas.report.progress import clock
from prefixnas.report.tables import best_of, score_rows, summary
from prefixnas.run.evaluation import AVERAGE
from prefixnas.run.events import Evaluation
from prefixnas.run.record import (
    Record,
    final_probabilities,
    read_record,
    run_space,
)
from prefixnas.space.architecture import by_layer
from prefixnas.space.space import SearchSpace


def write_report(run_dir: Path, space: SearchSpace | None = None) -> Path:
    """Draw the plots and write `report.html` of a run, finished or not.

    What the run does not have (a result, alphas, warnings) is left out.

    Args:
        run_dir: The run folder.
        space: The run's space, for the drawing of the architecture; the one that the run names
            is loaded if not given.

    Returns:
        The path of the report.

    Raises:
        UserError: No run folder, a damaged file in it, or a folder that cannot be written.
    """
    record = read_record(run_dir)
    note = ""
    if space is None and record.architecture is not None:
        try:
            space = run_space(record)
        except UserError as error:
            note = f"The architecture is not drawn: {error}"
    plots = draw_record(record, space)
    path = run_dir / "report.html"
    write_text(path, render(record, plots, note))
    return path


_SEARCH = ("alphas", "trajectories", "entropy", "discretisation", "gradients", "stability")


def render(record: Record, plots: Mapping[str, Path], note: str = "") -> str:
    """Return the HTML text of the report.

    Args:
        record: The run.
        plots: PNG files by name; those there are.
        note: A sentence under the architecture, as plain text.
    """
    sections = [
        _warnings(record.warnings()),
        section("Scores per task", _score_table(record), _image("scores", plots)),
        section(
            "Architecture",
            _architecture_table(record),
            _image("architecture", plots),
            f"<p class='note'>{escape(note)}</p>" if note else "",
        ),
        section("Search", *(_image(name, plots) for name in _SEARCH), _ranking(record)),
        section("Trials", _image("trials", plots), _trial_table(record)),
        section("Training", _image("losses", plots)),
        section("Every evaluation", _evaluations(record.of(Evaluation))),
        section("Time", _timing(record)),
        section("Configuration", _config(record.config)),
    ]
    return page(record.name, summary(record), *sections)


def _warnings(messages: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(message)}</li>" for message in messages)
    return f"<section class='warnings'><h2>Warnings</h2><ul>{items}</ul></section>" * bool(items)


def _image(name: str, plots: Mapping[str, Path]) -> str:
    return image(TITLES[name], plots[name].read_bytes()) if name in plots else ""


def _score_table(record: Record) -> str:
    columns = record.columns()
    rows = []
    for name, scores in score_rows(columns):
        best = best_of(scores)
        cells = [
            "-" if score is None else f"<b>{score:.3f}</b>" if index in best else f"{score:.3f}"
            for index, score in enumerate(scores)
        ]
        rows.append([escape(name), *cells])
    if not rows:
        return ""
    kind = "numbers average" if rows[-1][0] == AVERAGE else "numbers"
    return grid(["task", *map(escape, columns)], rows, kind)


def _architecture_table(record: Record) -> str:
    if not record.architecture:
        return ""
    layers = by_layer(record.architecture)
    keys = list(dict.fromkeys(key for layer in layers.values() for key in layer))
    rows = [
        [escape(layer or "all"), *(escape(options.get(key, "-")) for key in keys)]
        for layer, options in layers.items()
    ]
    return grid(["layer", *map(escape, keys)], rows)


def _ranking(record: Record) -> str:
    chosen: Mapping[str, str] = record.architecture or {}
    rows = []
    for decision, options in final_probabilities(record).items():
        cells = []
        for option, probability in options.items():
            value = "pruned" if probability == 0 else f"{probability:.3f}"
            text = f"{escape(option)}&nbsp;{value}"
            mark = "b" if option == chosen.get(decision) else "span"
            cells.append(f"<{mark}>{text}</{mark}>")
        rows.append([escape(decision), ", ".join(cells)])
    if not rows:
        return ""
    return details("Probabilities as last recorded", grid(["decision", "candidates"], rows))


def _trial_table(record: Record) -> str:
    trials = tried(record)
    names = dict.fromkeys(name for trial in trials for name in trial.choices)
    differ = [name for name in names if len({trial.choices.get(name) for trial in trials}) > 1]
    rows = [[t.name, _number(t.score), *(t.choices.get(n, "-") for n in differ)] for t in trials]
    tried_grid = grid(["trial", "score", *map(escape, differ)], (map(escape, row) for row in rows))
    return details(f"{len(rows)} architectures tried", tried_grid) if rows else ""


def _evaluations(events: Sequence[Evaluation]) -> str:
    rows = []
    for event in events:
        for task, metrics in event.scores.items():
            values = ", ".join(f"{escape(m)} {_number(v)}" for m, v in metrics.items())
            rows.append([escape(event.name), escape(event.split), escape(task), values])
    if not rows:
        return ""
    head = ["model", "split", "task", "metrics"]
    return details(f"{len(events)} evaluations, all metrics", grid(head, rows))


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, (int, float)) else escape(str(value))


def _timing(record: Record) -> str:
    rows = [
        [
            escape(place),
            str(steps) if steps else "-",
            clock(seconds),
            f"{seconds / steps:.3f}" if steps else "-",
        ]
        for place, (steps, seconds) in record.timing().items()
    ]
    return grid(["phase", "steps", "time", "seconds per step"], rows, "numbers") if rows else ""


def _config(config: Mapping[str, Any]) -> str:
    if not config:
        return ""
    text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
    return details("config.yaml", f"<pre>{escape(text)}</pre>")
