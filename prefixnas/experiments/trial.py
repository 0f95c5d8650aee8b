"""One trial: a search under one assignment of the hyper-parameters. Every engine calls this."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from prefixnas.base.errors import UserError
from prefixnas.base.files import parse_json, write_text
from prefixnas.base.locks import try_lock
from prefixnas.run import events
from prefixnas.run.evaluation import AVERAGE, BASELINE, EQUAL_WEIGHTS, TRAINED, Evaluation
from prefixnas.run.event_file import read_events
from prefixnas.run.result import read_result

Report = Callable[[int, float], None]
"""Takes an epoch, counted from 1, and its score on the split "selection"; raises `Pruned`."""

RESULT = "trial.json"


class Pruned(Exception):
    """Raised by `report`: the trial is to end early."""


class Busy(UserError):
    """Another process runs this trial."""


@dataclass(frozen=True)
class TrialResult:
    """What a trial came to.

    Attributes:
        score: Of the trained child on the split "selection"; of the last epoch if it was pruned.
        validation: The same metric on the split "validation", which chooses nothing; None: pruned.
        epochs: Scores of the epochs, from the first on.
        steps: Training steps that were taken, those of the search among them.
        parameters: How many numbers were trained; None: pruned.
        architecture: The options that were found, by decision; empty: pruned.
        pruned: Whether it ended early.
    """

    score: float
    validation: float | None
    epochs: list[float]
    steps: int
    parameters: int | None = None
    architecture: Mapping[str, str] = field(default_factory=dict)
    pruned: bool = False


def run_trial(
    config: Mapping[str, Any], report: Report, folder: Path, *, metric: str = AVERAGE
) -> TrialResult:
    """Search under a complete configuration; go on if `folder` holds an unfinished trial.

    The same as `prefixnas search --config FILE --out FOLDER`, and the same score.

    Args:
        config: Every key of `prefixnas search`, as `Experiment.resolve` returns them.
        report: Called at the end of every epoch, with those before a resumption once more.
        folder: The run directory.
        metric: `average`, or the task whose score counts.

    Raises:
        UserError: What `prefixnas search` refuses, or a metric that is no task.
        Busy: Another process runs the trial in `folder`.
    """
    with held(folder):
        if (folder / RESULT).is_file():
            result = read_trial(folder)
            for epoch, score in enumerate(result.epochs, 1):
                with suppress(Pruned):  # it is over
                    report(epoch, score)
            return result
        return _run(config, report, folder, metric)


def read_trial(folder: Path) -> TrialResult:
    """Read what a finished trial left.

    Raises:
        UserError: No such file, or a damaged one.
    """
    path = folder / RESULT
    try:
        return TrialResult(**parse_json(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise UserError(f"{folder}: holds no finished trial (no {RESULT} in it)") from error
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: not what a trial writes") from error


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a trial's folder against other processes; the lock ends with its process.

    Raises:
        Busy: Another process holds it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    if (lock := try_lock(folder.with_name(f".{folder.name}.lock"))) is None:
        raise Busy(f"{folder}: another process runs this trial")
    with lock:
        yield


def is_free(folder: Path) -> bool:
    """Tell whether no process holds a trial's folder."""
    try:
        with held(folder):
            return True
    except Busy:
        return False


def trial_folder(study: Path, number: int) -> Path:
    """Return the run directory of a trial in the folder of its study."""
    return study / "trials" / f"{number:04}"


def _run(config: Mapping[str, Any], report: Report, folder: Path, metric: str) -> TrialResult:
    from prefixnas.launch.plan import resolve_run
    from prefixnas.launch.start import start_run

    values = resolve_run([(str(folder), config)])
    begun = (folder / "config.yaml").is_file()
    epochs = _Epochs(report, metric)
    if begun:
        epochs.replay(folder)
    try:
        found = start_run(values, folder, resume=begun, on_event=epochs.on_event)
    except Pruned:
        scores = epochs.scores
        result = TrialResult(scores[-1], None, scores, _steps(folder), pruned=True)
    else:
        validation = found.columns[TRAINED]
        assert validation is not None
        outcome = read_result(folder)
        assert outcome is not None
        result = TrialResult(
            found.selected.of(metric),
            validation.of(metric),
            epochs.scores,
            _steps(folder),
            outcome["trained_parameters"],
            found.architecture.choices,
        )
    write_text(folder / RESULT, json.dumps(asdict(result), indent=2) + "\n")
    return result


class _Epochs:
    """Hands the epochs of a run on, until the child that counts is trained.

    Args:
        report: Takes them.
        metric: What is handed on.
    """

    def __init__(self, report: Report, metric: str) -> None:
        self._report, self._metric = report, metric
        self._scores: dict[int, float] = {}
        self._trained = False

    @property
    def scores(self) -> list[float]:
        """All scores, in order."""
        return [self._scores[epoch] for epoch in sorted(self._scores)]

    def on_event(self, event: events.Event) -> None:
        """Take an event of the run."""
        if isinstance(event, events.Evaluation):
            # A metric that is no task is found at the first of them.
            Evaluation(event.scores, event.task_scores).of(self._metric)
            self._trained = self._trained or event.name == TRAINED
        elif isinstance(event, events.Epoch) and not self._trained:
            score = Evaluation({}, event.task_scores).of(self._metric)
            self._scores[event.epoch] = score
            self._report(event.epoch, score)

    def replay(self, folder: Path) -> None:
        """Take what a run told before it was interrupted: that ends nothing now."""
        for event in _events(folder):
            with suppress(Pruned):
                self.on_event(event)


def _events(folder: Path) -> list[events.Event]:
    """Return what a run wrote so far."""
    there = (folder / "metrics.jsonl").is_file()
    return read_events(folder) if there else []


def _steps(folder: Path) -> int:
    """Count the training steps that a trial took."""
    without = (BASELINE, EQUAL_WEIGHTS)
    return sum(isinstance(e, events.Step) and e.phase not in without for e in _events(folder))
