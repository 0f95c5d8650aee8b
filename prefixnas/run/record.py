"""What a run left behind: its events, result, architecture and configuration, read back.

A run that was interrupted has only some of them; whatever is there can be read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml
from numpy.typing import NDArray

from prefixnas.base.errors import UserError
from prefixnas.base.yaml import read_yaml
from prefixnas.run import events
from prefixnas.run.answers import TaskAnswers, read_answers
from prefixnas.run.evaluation import ARGMAX, MIXTURE
from prefixnas.run.event_file import read_events
from prefixnas.run.events import Evaluation, Event
from prefixnas.run.result import Columns, check_columns, read_result
from prefixnas.space.architecture import Architecture
from prefixnas.space.space import SearchSpace

E = TypeVar("E", bound=Event)


@dataclass(frozen=True)
class Record:
    """Everything that a run folder holds.

    Attributes:
        folder: The run folder.
        events: The events, in the order they were written.
        result: `result.json`; None until the run has ended.
        config: `config.yaml`; empty if there is none.
        architecture: The choices; None until they are made.
    """

    folder: Path
    events: Sequence[Event]
    result: Mapping[str, Any] | None
    config: Mapping[str, Any]
    architecture: Architecture | None

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        return self.folder.resolve().name

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.result is not None

    def of(self, kind: type[E]) -> list[E]:
        """Return all events of one class."""
        return [event for event in self.events if isinstance(event, kind)]

    def start(self, key: str) -> Any:
        """Return what the run said of itself: result first, then start event, then config."""
        said = [event.to_json() for event in self.of(events.Start)[-1:]]
        for source in (self.result or {}, *said, self.config):
            if source.get(key) is not None:
                return source[key]
        return None

    def columns(self) -> Columns:
        """Return the table's columns; without a result, the validation scores there are."""
        if self.result is not None:
            return check_columns(self.result, str(self.folder / "result.json"))
        return {event.name: event.to_json() for event in self.validated().values()}

    def tested(self) -> Columns:
        """Return the scores on the split "test", in the table's order; empty without one."""
        found = {e.name: e.to_json() for e in self.of(Evaluation) if e.split == "test"}
        order = [name for name in self.columns() if name in found]
        return {name: found[name] for name in order or found}

    def validated(self) -> dict[str, Evaluation]:
        """Return the evaluations on the split "validation" by their names, the last of each."""
        return {e.name: e for e in self.of(Evaluation) if e.split == "validation"}

    def phases(self) -> list[str]:
        """Return the phases that took steps, in their order."""
        return list(dict.fromkeys(event.phase for event in self.of(events.Step)))

    def tasks(self) -> list[str]:
        """Return every task with a loss or a score, in the order they come up."""
        found: dict[str, None] = {}
        for event in self.of(events.Step):
            found.update(dict.fromkeys(event.losses))
        for column in self.columns().values():
            found.update(dict.fromkeys(column["task_scores"] if column else ()))
        return list(found)

    def warnings(self) -> list[str]:
        """Return the different warnings."""
        return list(dict.fromkeys(event.message for event in self.of(events.Warning)))

    def gap(self, mixture_name: str = MIXTURE) -> float | None:
        """Return the discretisation gap: score of a mixture minus that of the argmax child."""
        scores = {name: found.score for name, found in self.validated().items()}
        mixture, argmax = scores.get(mixture_name), scores.get(ARGMAX)
        return None if mixture is None or argmax is None else mixture - argmax

    def differences(self) -> dict[tuple[str, str], Mapping[str, Any]]:
        """Return how far columns are apart, by their labels: of which, over which.

        See `prefixnas.run.evaluation.differences`; there are none before the run has ended.
        """
        found = (self.result or {}).get("differences", [])
        return {(less["of"], less["over"]): less for less in found}

    def answers(self) -> dict[str, TaskAnswers]:
        """Return what models answered to some examples, by task.

        Raises:
            UserError: The file that holds it is damaged.
        """
        return read_answers(self.folder)

    def seconds(self) -> float:
        """Return the time all processes of this run took, killed ones included."""
        return sum(seconds for _, seconds in self._spans())

    def timing(self) -> dict[str, tuple[int, float]]:
        """Return steps and seconds per phase; "evaluation" and "other" take no steps."""
        steps = {phase: 0 for phase in self.phases()}
        seconds: dict[str, float] = {}
        for event, span in self._spans():
            place = "evaluation" if isinstance(event, events.Evaluation) else "other"
            place = phase if (phase := getattr(event, "phase", None)) in steps else place
            seconds[place] = seconds.get(place, 0.0) + span
            if isinstance(event, events.Step):
                steps[place] += 1
        return {
            place: (steps.get(place, 0), seconds.get(place, 0.0))
            for place in [*steps, "evaluation", "other"]
            if place in steps or place in seconds
        }

    def _spans(self) -> list[tuple[Event, float]]:
        """Return each event with the time since the one before it in its process."""
        spans, before = [], 0.0
        for event in self.events:
            # A resumed run is a new process: its clock starts again.
            spans.append((event, event.time - before if event.time >= before else event.time))
            before = event.time
        return spans


def read_record(run_dir: Path) -> Record:
    """Read a run folder, finished or not.

    Raises:
        UserError: No run folder, or a damaged file in it.
    """
    found = read_events(run_dir)
    result = read_result(run_dir)
    config = read_yaml(run_dir / "config.yaml") if (run_dir / "config.yaml").is_file() else {}
    if not isinstance(config, dict):
        raise UserError(f"{run_dir / 'config.yaml'}: expected a mapping")
    architecture = None
    announced = [event for event in found if isinstance(event, events.Architecture)]
    if (run_dir / "architecture.yaml").is_file():
        architecture = Architecture.load(run_dir / "architecture.yaml")
    elif announced:
        architecture = Architecture(announced[-1].choices, "")
    return Record(run_dir, found, result, config, architecture)


def decisions(record: Record) -> list[str]:
    """Return the decisions with recorded probabilities."""
    return list(dict.fromkeys(name for e in record.of(events.Alpha) for name in e.probabilities))


def alpha_matrix(record: Record, decision: str) -> tuple[list[int], list[str], NDArray[np.float64]]:
    """Return the course of one decision's probabilities.

    Returns:
        Steps, options, and the probabilities `[options, steps]`; NaN where one is missing.
    """
    found = [event for event in record.of(events.Alpha) if decision in event.probabilities]
    courses = [event.probabilities[decision] for event in found]
    options = list(dict.fromkeys(option for course in courses for option in course))
    rows = [[course.get(option, np.nan) for course in courses] for option in options]
    matrix = np.array(rows, dtype=np.float64).reshape(len(options), len(courses))
    return [event.step for event in found], options, matrix


def evidence(record: Record) -> Mapping[str, float]:
    """Return each decision's p by chance, as the last search found it; empty if none did."""
    found = record.of(events.Evidence)
    return found[-1].decisions if found else {}


def final_probabilities(record: Record) -> dict[str, dict[str, float]]:
    """Return each decision's last probabilities, the likeliest option first."""
    last: dict[str, Mapping[str, float]] = {}
    for event in record.of(events.Alpha):
        last.update(event.probabilities)
    return {
        decision: dict(sorted(options.items(), key=lambda item: -item[1]))
        for decision, options in last.items()
    }


def loss_series(
    record: Record, phase: str
) -> dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Return steps and losses per task in one phase; a task may be absent from some steps."""
    points: dict[str, list[tuple[int, float]]] = {}
    for event in record.of(events.Step):
        if event.phase == phase:
            for task, loss in event.losses.items():
                points.setdefault(task, []).append((event.step, loss))
    return {
        task: (
            np.array([step for step, _ in pairs], dtype=np.int64),
            np.array([loss for _, loss in pairs], dtype=np.float64),
        )
        for task, pairs in points.items()
    }


def run_space(record: Record) -> SearchSpace:
    """Load the space that a run was on: its `space.yaml`, or what its configuration names.

    Raises:
        UserError: The space cannot be found any more, or the architecture is not of it.
    """
    # Building a space checks its operations, which needs torch; reading a run does not.
    from prefixnas.space.loading import load_space, space_from_yaml

    kept = record.folder / "space.yaml"
    said = str(kept) if kept.is_file() else record.config.get("space") or record.start("space")
    if isinstance(said, Mapping):
        space = space_from_yaml(yaml.safe_dump(dict(said), sort_keys=False), "space of the run")
    elif isinstance(said, str):
        space = load_space(said)
    else:
        raise UserError(f"{record.folder}: the run does not say which space it is on")
    if record.architecture is not None:
        space.validate(record.architecture)
    return space


def read_search(folder: Path) -> Record:
    """Read a finished differentiable run.

    Raises:
        UserError: Not a run, not finished, or without alphas.
    """
    record = read_record(folder)
    if not record.of(events.Alpha):
        strategy = record.start("strategy")
        raise UserError(f"{folder}: a run without alphas, its strategy is {strategy!r}")
    if not record.finished:
        raise UserError(
            f"{folder}: not finished; prefixnas search --resume --out {folder} goes on with it"
        )
    return record
