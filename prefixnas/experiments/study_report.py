"""The report of a study: one HTML file with its plots, its trials and its best one."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterable, Mapping
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefixnas.base.files import write_text
from prefixnas.experiments.rows import (
    ARCHITECTURE,
    COMPLETE,
    FAIL,
    PARAMETERS,
    PRUNED,
    STEPS,
    VALIDATION,
    Row,
    quiet,
)
from prefixnas.experiments.trial import trial_folder
from prefixnas.experiments.view import short, trial_table
from prefixnas.report.grid import facts, number
from prefixnas.report.page import details, image, page, section, verbatim
from prefixnas.report.progress import by_key, clock
from prefixnas.report.tables import date
from prefixnas.run.record import read_record

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    from prefixnas.experiments.study import Study

REPORT, NUMBERS = "report.html", "report.json"

PLOTS: Mapping[str, str] = {
    "plot_optimization_history": "Score by trial, and the best one so far",
    "plot_intermediate_values": "Score by epoch, a line for each trial",
    "plot_parallel_coordinate": "Hyper-parameters and score, a line for each complete trial",
    "plot_param_importances": "Importance of the hyper-parameters for the score (fANOVA)",
}
"""Functions of `optuna.visualization.matplotlib`, with what they show."""


SCORE = "score"
WORDS: Mapping[str, str] = {
    "Intermediate Value": SCORE,
    "Step": "epoch",
    "Hyperparameter": "",
    "Trial": "trial",
    "Importance": "importance",
    "Best Value": "best so far",
}
"""Optuna's words on axes and in legends, in ours; what the caption says is left out."""

COUNTED = ("trial", "epoch")
"""Axes of whole numbers."""

COLUMNS = ("trial", "state", "score", "validation", "epochs", "steps")
"""What the table shows of a trial besides its hyper-parameters."""

LEGEND = 12
"""Lines that are named; more would cover the page, and are in the table anyway."""


def write_study_report(study: Study) -> Path:
    """Draw the plots and write `report.html` of a study, finished or not, and its numbers.

    Raises:
        UserError: The file cannot be written.
    """
    rows, best = study.rows(), study.best()
    trials = trial_table(rows, study.experiment.target.direction, COLUMNS, apart=True)
    path, summary = study.folder / REPORT, {**_about(study, rows), **_summary(rows, best)}
    data = {
        "summary": summary,
        "best": best and best.number,
        "importance": _importance(study),
        "trials": [vars(row) for row in rows],
    }
    write_text(study.folder / NUMBERS, json.dumps(data, indent=1) + "\n")
    text = page(
        study.experiment.name,
        summary,
        section("Best trial", _best(best)),
        section("Course", *(_plot(study, name) for name in PLOTS)),
        section("Trials", trials.html()),
        section("Experiment", details("the file, resolved", verbatim(study.experiment.dump()))),
    )
    write_text(path, text)
    return path


def _about(study: Study, rows: list[Row]) -> dict[str, str]:
    """Return date, model and tasks, as the first run that is there says; not what is searched."""
    folders = (trial_folder(study.folder, row.number) for row in rows)
    folder = next((folder for folder in folders if (folder / "metrics.jsonl").is_file()), None)
    if folder is None:
        return {}
    record = read_record(folder)
    known = {
        "date": date(record.start("began")),
        **(record.start("about") or {}),
        "tasks": ", ".join(record.tasks()),
    }
    searched = {name for row in rows for name in row.params}
    return {key: fact for key, fact in known.items() if fact and key not in searched}


def _summary(rows: list[Row], best: Row | None) -> dict[str, str]:
    states = [row.state for row in rows]
    steps = sum(int(row.notes.get(STEPS, 0)) for row in rows)
    known = {
        "trials": str(len(rows)),
        "complete": str(states.count(COMPLETE)),
        "pruned": str(states.count(PRUNED)),
        "failed": str(states.count(FAIL)),
        "training steps": f"{steps:,}",
        "time of all trials": clock(sum(row.seconds or 0.0 for row in rows)),
    }
    if best is not None:
        known["best score (selection)"] = number(best.score, ".4f")
    return known


def _best(best: Row | None) -> str:
    if best is None:
        return ""
    notes = best.notes
    known = [
        ("trial", str(best.number)),
        ("score on the selection split", number(best.score, ".4f")),
        ("score on the validation split", number(notes.get(VALIDATION), ".4f")),
        *((name, short(value)) for name, value in best.params.items()),
        *((key, ", ".join(taken)) for key, taken in by_key(notes.get(ARCHITECTURE, {})).items()),
        ("trained weights", number(notes.get(PARAMETERS), ",.0f")),
        ("run directory", f"trials/{best.number:04}"),
    ]
    return facts(known).html()


def _importance(study: Study) -> dict[str, float]:
    """Return the importance of each hyper-parameter; empty if there are too few trials."""
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    try:
        with quiet():
            evaluator = FanovaImportanceEvaluator(seed=0)
            return dict(get_param_importances(study.optuna, evaluator=evaluator))
    except (ValueError, RuntimeError):
        return {}


def _plot(study: Study, name: str) -> str:
    """Draw one of Optuna's plots; what there are too few trials for is left out."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from optuna.importance import FanovaImportanceEvaluator
    from optuna.visualization import matplotlib as plots

    draw: Callable[..., Any] = getattr(plots, name)
    # The forest of fANOVA is drawn at random: with a seed the plot shows what the file says.
    offered = {"target_name": SCORE, "evaluator": FanovaImportanceEvaluator(seed=0)}
    words = {key: offered[key] for key in offered.keys() & signature(draw).parameters.keys()}
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


def _in_our_words(labels: Iterable[Text]) -> None:
    for label in labels:
        text = re.sub(r"^Trial(?=\d)", "trial ", label.get_text())
        for word, ours in WORDS.items():
            text = text.replace(word, ours)
        label.set_text(text)


def _tidy(figure: Figure) -> None:
    """Make one of Optuna's plots readable: no title beside the caption, no line in white."""
    from matplotlib.collections import LineCollection
    from matplotlib.ticker import MaxNLocator

    crowd = [found for axes in figure.axes for found in axes.findobj(LineCollection)]
    for axes in figure.axes:
        for place in ("left", "center"):
            axes.set_title("", loc=place)
        legend = axes.get_legend()
        if legend is not None and not 1 < len(legend.get_texts()) <= LEGEND:
            legend.remove()
        _in_our_words([axes.xaxis.label, axes.yaxis.label, *(legend.get_texts() if legend else ())])
        if axes.get_xlabel() in COUNTED:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if crowd:  # parallel coordinates: the axes of all hyper-parameters lie above each other
            axes.grid(visible=False)
            axes.set_facecolor("white")
            for tick in axes.get_yticklabels():
                tick.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.8})
    for lines in crowd:
        upwards = not lines.get_cmap().name.endswith("_r")
        lines.set_cmap("viridis_r" if upwards else "viridis")  # good trials are dark
