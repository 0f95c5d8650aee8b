"""The report of a study: one HTML file with its plots, its trials and its best one."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from html import escape
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefixnas.base.files import write_text
from prefixnas.experiments.rows import (
    ARCHITECTURE,
    COMPLETE,
    ERROR,
    FAIL,
    PARAMETERS,
    PRUNED,
    STEPS,
    VALIDATION,
    Row,
    quiet,
)
from prefixnas.report.page import details, grid, image, page, section
from prefixnas.report.progress import clock

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from prefixnas.experiments.study import Study

REPORT = "report.html"

PLOTS: Mapping[str, str] = {
    "plot_optimization_history": "Score by trial, and the best one so far",
    "plot_intermediate_values": "Score by epoch, a line for each trial",
    "plot_parallel_coordinate": "Hyper-parameters and score, a line for each complete trial",
    "plot_param_importances": "Importance of the hyper-parameters for the score (fANOVA)",
}
"""Functions of `optuna.visualization.matplotlib`, with what they show."""


SCORE = "score"
WORDS: Mapping[str, str] = {"Intermediate Value": SCORE, "Step": "epoch", "Hyperparameter": ""}
"""Optuna's words on the axes, in ours; what the caption says is left out."""

LEGEND = 12
"""Lines that are named; more would cover the page, and are in the table anyway."""


def write_study_report(study: Study) -> Path:
    """Draw the plots and write `report.html` of a study, finished or not.

    Raises:
        UserError: The file cannot be written.
    """
    rows, best = study.rows(), study.best()
    path = study.folder / REPORT
    text = page(
        study.experiment.name,
        _facts(rows, best),
        section("Best trial", _best(best)),
        section("Course", *(_plot(study, name) for name in PLOTS)),
        section("Trials", _trials(rows)),
        section("Experiment", details("the file, resolved", _pre(study.experiment.dump()))),
    )
    write_text(path, text)
    return path


def _facts(rows: list[Row], best: Row | None) -> dict[str, str]:
    states = [row.state for row in rows]
    steps = sum(int(row.notes.get(STEPS, 0)) for row in rows)
    facts = {
        "trials": str(len(rows)),
        "complete": str(states.count(COMPLETE)),
        "pruned": str(states.count(PRUNED)),
        "failed": str(states.count(FAIL)),
        "training steps": f"{steps:,}",
        "time of all trials": clock(sum(row.seconds or 0.0 for row in rows)),
    }
    if best is not None:
        facts["best score (selection)"] = _number(best.score)
    return facts


def _best(best: Row | None) -> str:
    if best is None:
        return ""
    notes = best.notes
    rows = [
        ["trial", str(best.number)],
        ["score on the selection split", _number(best.score)],
        ["score on the validation split", _number(notes.get(VALIDATION))],
        *([name, _number(value)] for name, value in best.params.items()),
        *([key, ", ".join(options)] for key, options in _by_key(notes).items()),
        ["trained numbers", str(notes.get(PARAMETERS, "-"))],
        ["run directory", f"trials/{best.number:04}"],
    ]
    return grid(["", ""], ([escape(name), escape(text)] for name, text in rows))


def _trials(rows: list[Row]) -> str:
    begun = [row for row in rows if row.params]
    names = list(dict.fromkeys(name for row in begun for name in row.params))
    lines = [
        [
            str(row.number),
            row.state,
            _number(row.score),
            _number(row.notes.get(VALIDATION)),
            str(len(row.epochs)),
            str(row.notes.get(STEPS, "-")),
            *(_number(row.params.get(name)) for name in names),
            str(row.notes.get(ERROR, "")),
        ]
        for row in begun
    ]
    head = ["trial", "state", "selection", "validation", "epochs", "steps", *names, "error"]
    return grid(map(escape, head), (map(escape, line) for line in lines)) if lines else ""


def _plot(study: Study, name: str) -> str:
    """Draw one of Optuna's plots; what there are too few trials for is left out."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from optuna.visualization import matplotlib as plots

    draw: Callable[..., Any] = getattr(plots, name)
    words = {"target_name": SCORE} if "target_name" in signature(draw).parameters else {}
    try:
        with quiet():
            found = draw(study.optuna, **words)
            figure = getattr(found, "figure", None) or pyplot.gcf()
            figure.set_size_inches(9.0, 4.2)
            _tidy(figure)
            file = io.BytesIO()
            figure.savefig(file, format="png", dpi=130, bbox_inches="tight")
    except (ValueError, RuntimeError):  # too few trials, or all scores are the same
        return ""
    finally:
        pyplot.close("all")
    return image(PLOTS[name], file.getvalue())


def _tidy(figure: Figure) -> None:
    """Make one of Optuna's plots readable: no title beside the caption, no line in white."""
    from matplotlib.collections import LineCollection

    crowd = [found for axes in figure.axes for found in axes.findobj(LineCollection)]
    for axes in figure.axes:
        for place in ("left", "center"):
            axes.set_title("", loc=place)
        for label, word in WORDS.items():
            axes.set_xlabel(axes.get_xlabel().replace(label, word))
            axes.set_ylabel(axes.get_ylabel().replace(label, word))
        legend = axes.get_legend()
        if legend is not None and not 1 < len(legend.get_texts()) <= LEGEND:
            legend.remove()
        if crowd:  # parallel coordinates: the axes of all hyper-parameters lie above each other
            axes.grid(visible=False)
            axes.set_facecolor("white")
            for tick in axes.get_yticklabels():
                tick.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.8})
    for lines in crowd:
        upwards = not lines.get_cmap().name.endswith("_r")
        lines.set_cmap("viridis_r" if upwards else "viridis")  # good trials are dark


def _by_key(notes: Mapping[str, Any]) -> dict[str, list[str]]:
    keys: dict[str, list[str]] = {}
    for name, option in dict(notes.get(ARCHITECTURE, {})).items():
        keys.setdefault(name.rsplit("/", 1)[-1], []).append(str(option))
    return keys


def _pre(text: str) -> str:
    return f"<pre>{escape(text)}</pre>"


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
