"""A trial as the study knows it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna

PLACE, PROCESS, CRASHES = "place", "process", "crashes"
ERROR, DIRECTORY, ARCHITECTURE = "error", "run directory", "architecture"
VALIDATION, STEPS, PARAMETERS = "validation", "steps", "trained parameters"
"""Names of what is noted about a trial besides its score: Optuna's user attributes."""

RUNNING, WAITING, COMPLETE, PRUNED, FAIL = "running", "waiting", "complete", "pruned", "failed"


@dataclass(frozen=True)
class Row:
    """One trial as it stands.

    Attributes:
        number: Its number in the study.
        state: `waiting`, `running`, `complete`, `pruned` or `failed`.
        score: Of a complete trial, on the split "selection".
        epochs: Scores by epoch.
        params: Hyper-parameters, by their names in the study.
        notes: What else is known: validation score, steps, architecture, run directory, error.
        seconds: From its start to its end.
    """

    number: int
    state: str
    score: float | None
    epochs: Mapping[int, float]
    params: Mapping[str, Any]
    notes: Mapping[str, Any]
    seconds: float | None

    @property
    def scores(self) -> list[float]:
        """Scores of the epochs, in their order."""
        return [self.epochs[epoch] for epoch in sorted(self.epochs)]

    @property
    def over(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self.state in (COMPLETE, PRUNED, FAIL)

    def document(self) -> dict[str, Any]:
        """Return it as JSON shows it."""
        return {
            "trial": self.number,
            "state": self.state,
            "score": self.score,
            "validation": self.notes.get(VALIDATION),
            "parameters": self.notes.get(PARAMETERS),
            "seconds": self.seconds,
            "hyperparameters": dict(self.params),
            "architecture": self.notes.get(ARCHITECTURE),
            "epochs": list(self.epochs.values()),
            "error": self.notes.get(ERROR),
            "run": self.notes.get(DIRECTORY),
        }


def row_of(trial: optuna.trial.FrozenTrial) -> Row:
    """Return what Optuna knows of a trial."""
    began, ended = trial.datetime_start, trial.datetime_complete
    return Row(
        trial.number,
        {"fail": FAIL}.get(trial.state.name.lower(), trial.state.name.lower()),
        trial.value if trial.state.name == "COMPLETE" else None,
        dict(trial.intermediate_values),
        dict(trial.params),
        dict(trial.user_attrs),
        (ended - began).total_seconds() if began and ended else None,
    )


def failures(rows: Iterable[Row]) -> list[str]:
    """Return a line for each trial that failed."""
    return [f"trial {row.number}: {row.notes.get(ERROR)}" for row in rows if row.state == FAIL]


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna from announcing what it does, and from warning of what is meant."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)
