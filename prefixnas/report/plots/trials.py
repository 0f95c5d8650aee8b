"""What a strategy tried, one architecture after the other, and how it scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from prefixnas.report.plots.style import FAINT, hue, new_panels, tidy
from prefixnas.run import events
from prefixnas.run.record import Record


@dataclass(frozen=True)
class Tried:
    """One tried architecture.

    Attributes:
        name: Name of the trial.
        choices: Option by decision.
        score: On the split "selection"; None if there is none (yet).
        standard_error: Of the score, over the examples, if it is known.
    """

    name: str
    choices: Mapping[str, str]
    score: float | None
    standard_error: float | None = None


def tried(record: Record) -> list[Tried]:
    """Return all trials of a run, in their order."""
    found = {e.name: e for e in record.of(events.Evaluation) if e.split == "selection"}
    return [
        Tried(trial.name, trial.choices, scored.score, scored.standard_error)
        if (scored := found.get(trial.name))
        else Tried(trial.name, trial.choices, None)
        for trial in record.of(events.Trial)
    ]


def trial_figure(record: Record) -> Figure | None:
    """Draw the score of every trial, and the best one so far."""
    scores = [np.nan if trial.score is None else trial.score for trial in tried(record)]
    if not np.isfinite(scores).any():
        return None
    figure, (axes,) = new_panels(1, 1, 2.6)
    numbers = np.arange(len(scores))
    axes.step(numbers, np.fmax.accumulate(scores), where="post", color=hue(0), lw=1.5)
    axes.plot(numbers, scores, "o", color=FAINT, ms=5, mec=hue(0), mew=1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    tidy(axes, x="trial", y="score on the selection split")
    return figure
