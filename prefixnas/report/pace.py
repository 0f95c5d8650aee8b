"""How long a run still takes: the rest of its phase, and of all that comes after it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from prefixnas.run import events
from prefixnas.run.events import Event


@dataclass(frozen=True)
class Left:
    """The seconds that are left, None while unknown.

    Attributes:
        phase: Of a phase.
        run: Of the run, the phase with it.
    """

    phase: float | None = None
    run: float | None = None


class Pace:
    """The time that a phase and a run still need, by the speed of their steps in this process.

    A phase goes on as fast as it went. What comes after it takes, for a step, as long as all took
    on the average since the first step, the evaluations between the phases with it. It is less
    where a phase ends early, or a baseline is left out.

    Args:
        earlier: Events of the run before this process.
    """

    def __init__(self, earlier: Iterable[Event] = ()) -> None:
        self._start: events.Start | None = None
        self._done: dict[str, int] = {}
        for event in earlier:
            self.see(event)
        self._phase: str | None = None
        self._first, self._began, self._seen = (0, 0.0), 0.0, 0

    def see(self, event: Event) -> None:
        """Take an event into account."""
        if isinstance(event, events.Start):
            self._start = event
        elif isinstance(event, events.Step):
            self._done[event.phase] = event.step + 1

    def left(self, event: events.Step) -> Left:
        """Take a step; return what is left after it."""
        self.see(event)
        if not self._seen:
            self._began = event.time
        self._seen += 1
        here = event.total - event.step - 1
        if event.phase != self._phase or event.step <= self._first[0]:
            self._phase, self._first = event.phase, (event.step, event.time)
            phase = None
        else:
            phase = (event.time - self._first[1]) / (event.step - self._first[0]) * here
        later = self._steps_after(event.phase, here)
        if self._seen == 1 or later is None:
            return Left(phase)
        mean = (event.time - self._began) / (self._seen - 1)
        return Left(phase, (mean * here if phase is None else phase) + mean * later)

    def _steps_after(self, phase: str, here: int) -> int | None:
        """Return how many steps follow a phase that has `here` of its own left; None: unknown."""
        if self._start is None:
            return None
        baselines = self._start.baselines
        later = sum(steps for name, steps in baselines.items() if name not in self._done)
        if phase in baselines:
            return later
        taken = sum(steps for name, steps in self._done.items() if name not in baselines)
        return max(0, sum(self._start.steps.values()) - taken - here) + later
