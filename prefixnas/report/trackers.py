"""A run's losses and scores in experiment trackers, through those of Accelerate.

A run has one count of steps over all its phases, from 1. What trackers get is numbered; the number
is noted in the run's folder before it is sent, so that a run that was killed and goes on sends
nothing twice.
"""

from __future__ import annotations

import json
import sys
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

from prefixnas.base.errors import UserError, first_line, unknown
from prefixnas.base.files import parse_json, read_text, write_text
from prefixnas.run import events
from prefixnas.run.evaluation import AVERAGE
from prefixnas.run.event_file import read_events
from prefixnas.run.events import Event

PACKAGES = {
    "aim": "aim",
    "clearml": "clearml",
    "comet_ml": "comet_ml",
    "dvclive": "dvclive",
    "mlflow": "mlflow",
    "swanlab": "swanlab",
    "tensorboard": "tensorboard",
    "trackio": "trackio",
    "wandb": "wandb",
}
"""Accelerate's trackers by their names, with the package that each needs."""

STATE = "trackers.json"
"""What was sent so far, in the run's folder."""


def check_names(names: Sequence[str]) -> None:
    """Refuse trackers that nobody knows.

    Raises:
        UserError: Names the nearest one.
    """
    for name in names:
        if name not in PACKAGES:
            raise unknown("tracker", name, PACKAGES, "key 'report_to'")


def check_installed(names: Sequence[str]) -> None:
    """Refuse trackers whose package is not installed.

    Raises:
        UserError: Names the package.
    """
    if not names:
        return
    from accelerate.tracking import get_available_trackers

    there = {str(getattr(name, "value", name)) for name in get_available_trackers()}
    for name in names:
        if name not in there:
            raise UserError(
                f"key 'report_to': {name} is not installed: pip install {PACKAGES[name]}"
            )


@dataclass
class _State:
    """What is kept for a run that goes on.

    Attributes:
        id: The run's, for trackers that want one.
        sent: Per tracker, how many messages it has got.
        own: Per tracker, what it calls the run itself.
    """

    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    sent: dict[str, int] = field(default_factory=dict)
    own: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Self:
        if not (path := folder / STATE).is_file():
            return cls()
        try:
            return cls(**parse_json(read_text(path)))
        except (TypeError, ValueError) as error:
            raise UserError(f"{path}: damaged; take it away, and trackers begin anew") from error

    def write(self, folder: Path) -> None:
        write_text(folder / STATE, json.dumps(vars(self)) + "\n")


class Trackers(AbstractContextManager["Trackers"]):
    """The trackers of a run, from its first event to its last; for the first rank alone.

    Args:
        names: Which ones.
        folder: The run's folder.
        project: What they call all runs together.
        config: The run's configuration, which they keep beside it.
    """

    def __init__(
        self, names: Sequence[str], folder: Path, project: str, config: Mapping[str, Any]
    ) -> None:
        self._names, self._folder, self._project = [*dict.fromkeys(names)], folder, project
        self._config = {name: _plain(value) for name, value in config.items()}
        self._open: dict[str, Any] = {}
        self._steps = self._messages = 0

    def __enter__(self) -> Self:
        if self._names:
            self._state = _State.read(self._folder)
        for name in self._names:
            try:
                with redirect_stdout(sys.stderr):  # results alone go to standard output
                    self._open[name] = self._start(name)
            except Exception as error:
                self._finish()
                reason = first_line(error)
                raise UserError(f"key 'report_to': {name} does not start: {reason}") from error
        return self

    def __exit__(self, *error: object) -> None:
        self._finish()

    def _start(self, name: str) -> Any:
        from accelerate import PartialState
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        PartialState()  # Accelerate's own log, which every tracker writes to, wants one
        state, known = self._state, name in self._state.sent
        place = _Place(self._folder, self._project, state.id, known, state.own.get(name))
        tracker = LOGGER_TYPE_TO_CLASS[name](**_ARGUMENTS.get(name, _by_project)(place))
        tracker.start()
        if not known:
            tracker.store_init_configuration(self._config)
            state.sent[name] = 0
            if name in _OWN_NAMES:
                state.own[name] = _OWN_NAMES[name](tracker)
            state.write(self._folder)
        return tracker

    def _finish(self) -> None:
        while self._open:
            name, tracker = self._open.popitem()
            with redirect_stdout(sys.stderr):
                _guarded(name, partial(_ENDS.get(name, _end), tracker))

    def catch_up(self) -> None:
        """Send what the run has said before, as far as a tracker has not got it.

        Raises:
            UserError: A damaged line.
        """
        for event in read_events(self._folder) if self._open else ():
            self.on_event(event)

    def on_event(self, event: Event) -> None:
        """Send what an event says, if it is of interest and was not sent before."""
        if isinstance(event, events.Step):
            self._steps += 1
        if not (values := series(event)):
            return
        self._messages += 1
        due = [name for name in self._open if self._state.sent[name] < self._messages]
        if not due:
            return
        self._state.sent.update(dict.fromkeys(due, self._messages))
        self._state.write(self._folder)
        for name in due:
            tracker = self._open[name]
            if not _guarded(name, partial(tracker.log, values, step=self._steps)):
                del self._open[name]


def series(event: Event) -> dict[str, float]:
    """Return what trackers are sent of an event, by the names of their curves; empty: nothing.

    Example:
        >>> from prefixnas.run.events import Evaluation, Step
        >>> series(Step.of("search", 0, 120, {"sst2": 0.7}, 0.002))
        {'search/loss': 0.7, 'search/lr': 0.002, 'search/loss/sst2': 0.7}
        >>> series(Evaluation("mixture", "validation", {}, {"sst2": 0.9}, 0.9))
        {'validation/mixture/average': 0.9, 'validation/mixture/sst2': 0.9}
        >>> series(Evaluation("trained child", "test", {}, {"sst2": 0.8}, 0.8))
        {'test/trained child/average': 0.8, 'test/trained child/sst2': 0.8}
    """
    match event:
        case events.Step():
            numbers = {
                name: getattr(event, name)
                for name in ("loss", "lr", "entropy", "weight_gradient_norm", "alpha_gradient_norm")
            }
            of_tasks = {f"loss/{task}": loss for task, loss in event.losses.items()}
            return _named(event.phase, {**numbers, **of_tasks})
        case events.Epoch():
            return _named(f"{event.phase}/selection", {AVERAGE: event.score, **event.task_scores})
        case events.Evaluation(split="validation" | "test" as split):
            return _named(f"{split}/{event.name}", {AVERAGE: event.score, **event.task_scores})
    return {}


def _named(group: str, numbers: Mapping[str, float | None]) -> dict[str, float]:
    return {f"{group}/{name}": value for name, value in numbers.items() if value is not None}


def _plain(value: Any) -> Any:
    """Return a key's value as every tracker takes it: a number or a text."""
    if isinstance(value, list | dict):
        return str(value)
    return "none" if value is None else value


def _guarded(name: str, call: Callable[[], object]) -> bool:
    """Call a tracker; one that fails is no reason to end a run."""
    try:
        call()
    except Exception as error:
        reason = first_line(error)
        warnings.warn(f"{name} failed, and gets no more of this run: {reason}", stacklevel=2)
        return False
    return True


# How each of them is told of the run, where its project's name alone is not enough


@dataclass(frozen=True)
class _Place:
    """Where a tracker keeps the run.

    Attributes:
        folder: The run's folder.
        project: The name of all runs together.
        id: The run's id.
        known: Whether the tracker has got something of the run before.
        own: What it then called the run, if it is one that has names of its own.
    """

    folder: Path
    project: str
    id: str
    known: bool
    own: str | None

    @property
    def name(self) -> str:
        return self.folder.resolve().name


def _by_project(place: _Place) -> dict[str, Any]:
    return {"run_name": place.project}


def _tensorboard(place: _Place) -> dict[str, Any]:
    return {"run_name": "tensorboard", "logging_dir": place.folder}


def _trackio(place: _Place) -> dict[str, Any]:
    # It finds a run by its name, which must be no other's. In a notebook it would show a dashboard
    # of its own below the cell.
    name, resume = f"{place.name}-{place.id[:6]}", "allow" if place.known else "never"
    return {**_by_project(place), "name": name, "resume": resume, "embed": False}


def _wandb(place: _Place) -> dict[str, Any]:
    return {**_by_project(place), "name": place.name, "id": place.id, "resume": "allow"}


def _mlflow(place: _Place) -> dict[str, Any]:
    return {"experiment_name": place.project, "run_name": place.name, "run_id": place.own}


_ARGUMENTS: Mapping[str, Callable[[_Place], dict[str, Any]]] = {
    "mlflow": _mlflow,
    "tensorboard": _tensorboard,
    "trackio": _trackio,
    "wandb": _wandb,
}


def _end(tracker: Any) -> None:
    tracker.finish()


def _end_trackio(_: Any) -> None:
    import trackio

    # The tracker's own would leave it to be finished, and told of, at exit again.
    finish: Callable[[], None] = trackio.finish
    finish()


_ENDS: Mapping[str, Callable[[Any], None]] = {"trackio": _end_trackio}

_OWN_NAMES: Mapping[str, Callable[[Any], str]] = {
    "mlflow": lambda tracker: str(tracker.tracker.info.run_id)
}
