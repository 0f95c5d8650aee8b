"""Live progress: a display that renews itself on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Self, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from prefixnas.base.errors import visible
from prefixnas.base.estimates import NORMAL
from prefixnas.report.grid import facts, number
from prefixnas.report.terminal import Terminal
from prefixnas.run import events
from prefixnas.run.events import Event
from prefixnas.space.architecture import decision_key

#: Plain lines of steps: at the earliest and at the latest after so many seconds.
SOONEST, LATEST = 2.0, 30.0


def open_progress(stream: TextIO | None = None) -> PlainProgress | LiveProgress:
    """Return the display that suits `stream`, standard output if not given.

    It is a context manager around the run; what is still due is shown when it is left.
    """
    stream = stream or sys.stdout
    console = terminal(stream)
    return PlainProgress(stream) if console is None else LiveProgress(console)


def terminal(stream: TextIO) -> Console | None:
    """Return the console of a stream that can renew what it shows, None for any other."""
    console = Terminal(file=stream)
    return console if stream.isatty() and not console.is_dumb_terminal else None


def clock(seconds: float) -> str:
    """Return `0:07`, `12:30`, `1:02:03`."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"


class Pace:
    """The time a phase still needs, by the speed of its steps in this process."""

    def __init__(self) -> None:
        self._phase: str | None = None
        self._first = (0, 0.0)

    def left(self, event: events.Step) -> float | None:
        """Take a step; return the seconds left in its phase, None while unknown."""
        if event.phase != self._phase or event.step <= self._first[0]:
            self._phase, self._first = event.phase, (event.step, event.time)
            return None
        each = (event.time - self._first[1]) / (event.step - self._first[0])
        return each * (event.total - event.step - 1)


def describe(event: Event) -> str:
    """Return one line for an event that is no step; empty for those that need none."""
    match event:
        case events.Evaluation():
            scores = ", ".join(f"{task} {value:.3f}" for task, value in event.task_scores.items())
            error = event.standard_error
            mean = number(event.score, spread=None if error is None else NORMAL * error)
            return f"{event.name} ({event.split}): score {mean}" + f" ({scores})" * bool(scores)
        case events.Prune():
            pairs = [f"{decision}={option}" for decision, option in event.dropped]
            more = f" and {len(pairs) - 3} more" if len(pairs) > 3 else ""
            return f"step {event.step + 1}: pruned {', '.join(pairs[:3])}{more}"
        case events.Architecture(choices):
            return f"architecture: {_listing(choices)}"
        case events.Trial(name, choices):
            return f"{name}: {_listing(choices)}"
        case events.Evidence():
            name = min(event.decisions, key=lambda decision: event.decisions[decision])
            return f"alphas: the steadiest pull is on {name} (p by chance {event.p:.3f})"
        case events.Stop():
            return f"step {event.step + 1}: the search stops: {event.reason}"
        case events.Proxy():
            times = ", ".join(f"{name} {value} s" for name, value in event.seconds.items())
            return f"a step on the proxy counted as {event.price:.3f} steps ({times})"
        case events.Warning():
            return f"warning: {event.message}"
        case events.End():
            return f"finished in {clock(event.seconds)}"
    return ""


def by_key(choices: Mapping[str, str]) -> dict[str, list[str]]:
    """Return options by the key of their decisions: `{"activation": ["relu", "tanh"]}`."""
    keys: dict[str, list[str]] = {}
    for name, option in choices.items():
        keys.setdefault(decision_key(name), []).append(option)
    return keys


def _listing(choices: Mapping[str, str]) -> str:
    return "; ".join(f"{key}: {', '.join(options)}" for key, options in by_key(choices).items())


class PlainProgress(AbstractContextManager["PlainProgress", None]):
    """One line now and then, for files, pipes and logs.

    A phase's steps are shown at its first and last step and at every tenth of it, but not more
    often than every `SOONEST` seconds, nor less often than every `LATEST`.

    Args:
        stream: Where lines go.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._pace = Pace()
        self._shown: tuple[str, int, float] | None = None
        self._due: tuple[events.Step, float | None] | None = None

    def __exit__(self, *error: object) -> None:
        self._flush()

    def on_event(self, event: Event) -> None:
        """Print a line if it is time for one."""
        if isinstance(event, events.Step):
            self._step(event)
        elif line := describe(event):
            if not isinstance(event, events.Prune):
                self._flush()
            self._print(line)

    def _step(self, event: events.Step) -> None:
        if self._due is not None and self._due[0].phase != event.phase:
            self._flush()
        self._due = (event, self._pace.left(event))
        if self._shown is None or self._shown[0] != event.phase or event.step + 1 >= event.total:
            self._flush()
            return
        _, before, at = self._shown
        tenth = (event.step + 1) * 10 // event.total > before * 10 // event.total
        if (tenth and event.time - at >= SOONEST) or event.time - at >= LATEST:
            self._flush()

    def _flush(self) -> None:
        if self._due is None:
            return
        event, left = self._due
        self._due = None
        self._shown = (event.phase, event.step + 1, event.time)
        losses = ", ".join(f"{task} {loss:.3f}" for task, loss in event.losses.items())
        parts = [f"{event.phase} {event.step + 1}/{event.total}"]
        if losses:
            parts.append(f"loss {event.loss:.3f} ({losses})")
        if event.entropy is not None:
            parts.append(f"alpha entropy {event.entropy:.3f}")
        if left is not None:
            parts.append(f"{clock(left)} left")
        self._print("  ".join(parts))

    def _print(self, line: str) -> None:
        print(visible(line), file=self._stream, flush=True)


class LiveProgress(AbstractContextManager["LiveProgress", None]):
    """A bar with losses, alpha entropy and time left, under a log of evaluations.

    Args:
        console: The terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._pace = Pace()
        self._step: events.Step | None = None
        self._left: float | None = None
        self._smooth: dict[str, float] = {}
        self._live = Live(console=console, get_renderable=self.render, refresh_per_second=4)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def on_event(self, event: Event) -> None:
        """Renew the display; evaluations and warnings stay above it."""
        if isinstance(event, events.Step):
            same = self._step is not None and self._step.phase == event.phase
            known = self._smooth if same else {}
            moved = {
                task: 0.9 * known.get(task, loss) + 0.1 * loss
                for task, loss in event.losses.items()
            }
            # A new mapping each time: the display's thread may be reading the old one.
            self._smooth = {**known, **moved}
            self._step, self._left = event, self._pace.left(event)
        elif line := describe(event):
            style = {events.Warning: "yellow", events.Prune: "dim"}.get(type(event), "")
            self._console.print(Text(line, style))

    def render(self) -> RenderableType:
        """Return the display as it stands."""
        event = self._step
        if event is None:
            return Text("preparing ...", "dim")
        done = event.step + 1
        left = "" if self._left is None else f"{clock(self._left)} left"
        bar = Table.grid(padding=(0, 1), expand=False)
        bar.add_row(
            Text(event.phase, "bold"),
            ProgressBar(total=event.total, completed=done, width=30),
            Text(f"{done}/{event.total}"),
            Text(left, "cyan"),
        )
        losses = facts((f"  {task}", f"{loss:.3f}") for task, loss in self._smooth.items())
        said = Text("  loss per task, smoothed", "dim")
        if event.entropy is not None:
            said = Text(f"  alpha entropy {event.entropy:.3f} nats", "magenta")
        return Group(bar, said, losses)
