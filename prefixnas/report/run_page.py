"""The report of a run: one HTML file with everything inside, no scripts, nothing from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import yaml

from prefixnas.base.errors import UserError
from prefixnas.base.estimates import NORMAL
from prefixnas.base.files import write_text
from prefixnas.report.answers import answer_parts
from prefixnas.report.grid import Grid, Number, number
from prefixnas.report.page import details, image, page, section, verbatim
from prefixnas.report.plots.run import TITLES, draw_record
from prefixnas.report.plots.trials import Tried, tried
from prefixnas.report.remarks import difference_table, remarks
from prefixnas.report.tables import (
    architecture_table,
    evaluation_table,
    probability_table,
    score_table,
    summary,
    timing_table,
)
from prefixnas.run.events import Evaluation
from prefixnas.run.record import Record, read_record, run_space
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


DIFFERENCES = "How much better the trained child is, on the same examples"
SIGNS = (
    "Paired by example, with the 95 % interval: > better and < worse, where it leaves zero out; "
    "~ no difference that these examples can show; = as good on every single one."
)
_SEARCH = ("alphas", "trajectories", "entropy", "discretisation", "gradients", "stability")


def render(record: Record, plots: Mapping[str, Path], note: str = "") -> str:
    """Return the HTML text of the report.

    Args:
        record: The run.
        plots: PNG files by name; those there are.
        note: A sentence under the architecture, as plain text.
    """
    trials, evaluations = _trial_table(record), evaluation_table(record)
    known = dict(record.config)
    config = yaml.safe_dump(known, sort_keys=False, allow_unicode=True) if known else ""
    sections = [
        _warnings(record.warnings()),
        section(
            "Scores per task",
            score_table(record.columns(), wide=True).html(),
            *(f"<p>{escape(line)}</p>" for line in remarks(record)),
            _differences(record),
            _image("scores", plots),
        ),
        section("Scores on the test split", score_table(record.tested(), wide=True).html()),
        section("Answers", _image("confusion", plots), *answer_parts(record)),
        section(
            "Architecture",
            architecture_table(record).html(),
            _image("architecture", plots),
            f"<p class='dim'>{escape(note)}</p>" if note else "",
        ),
        section(
            "Search",
            *(_image(name, plots) for name in _SEARCH),
            details("Probabilities as last recorded", probability_table(record).html()),
        ),
        section(
            "Trials",
            _image("trials", plots),
            details(f"{len(trials.rows)} architectures tried", trials.html()),
        ),
        section("Training", _image("losses", plots), _image("losses_by_task", plots)),
        section(
            "Every evaluation",
            details(f"{len(record.of(Evaluation))} evaluations, all metrics", evaluations.html()),
        ),
        section("Time", timing_table(record).html()),
        section("Configuration", details("config.yaml", verbatim(config))),
    ]
    return page(record.name, summary(record), *sections)


def _differences(record: Record) -> str:
    found = difference_table(record)
    note = f"<p class='dim'>{escape(SIGNS)}</p>"
    return details(DIFFERENCES, found.html() + note) if found.rows else ""


def _warnings(messages: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(message)}</li>" for message in messages)
    return f"<section class='warnings'><h2>Warnings</h2><ul>{items}</ul></section>" * bool(items)


def _image(name: str, plots: Mapping[str, Path]) -> str:
    return image(TITLES[name], plots[name].read_bytes()) if name in plots else ""


def _trial_table(record: Record) -> Grid:
    """Return what was tried: a row per trial, a column per decision in which they differ."""
    trials = tried(record)
    names = dict.fromkeys(name for trial in trials for name in trial.choices)
    differ = [name for name in names if len({trial.choices.get(name) for trial in trials}) > 1]
    rows = [
        [trial.name, _score(trial), *(trial.choices.get(n, "-") for n in differ)]
        for trial in trials
    ]
    return Grid(["trial", Number("score"), *differ], rows)


def _score(trial: Tried) -> str:
    error = trial.standard_error
    return number(trial.score, ".4f", None if error is None else NORMAL * error)
