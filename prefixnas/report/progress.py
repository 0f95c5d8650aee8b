"""Live progress: a display that renews itself on a terminal, plain lines anywhere else."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Self, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from prefixnas.base.errors import visible
from prefixnas.base.estimates import NORMAL
from prefixnas.report.grid import chance, facts, number
from prefixnas.report.pace import Left, Pace
from prefixnas.report.terminal import Terminal
from prefixnas.run import events
from prefixnas.run.events import Event
from prefixnas.space.architecture import decision_key

#: Plain lines of steps: at the earliest and at the latest after so many seconds.
SOONEST, LATEST = 2.0, 30.0


def open_progress(
    stream: TextIO | None = None,
    earlier: Iterable[Event] = (),
    *,
    quiet: bool = False,
    verbose: bool = False,
) -> PlainProgress | LiveProgress | QuietProgress:
    """Return the display that suits `stream`.

    It is a context manager around the run; what is still due is shown when it is left.

    Args:
        stream: Where it goes; standard error if not given.
        earlier: The events of a run that goes on: the time left takes what is done into account.
        quiet: Show warnings alone.
        verbose: Show a line for every step, with all that is known of it.
    """
    stream = stream or sys.stderr or io.StringIO()  # a program without a terminal may have none
    if quiet:
        return QuietProgress(stream)
    pace = Pace(earlier)
    console = None if verbose else terminal(stream)
    return PlainProgress(stream, pace, verbose) if console is None else LiveProgress(console, pace)


def terminal(stream: TextIO) -> Console | None:
    """Return the console of a stream that can renew what it shows, None for any other."""
    console = Terminal(file=stream)
    return console if stream.isatty() and not console.is_dumb_terminal else None


def clock(seconds: float) -> str:
    """Return `0:07`, `12:30`, `1:02:03`."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"


def said_of(left: Left) -> str:
    """Return `0:25 left, 3:40 in all`, or what is known of it."""
    if left.phase is None:
        return "" if left.run is None else f"{clock(left.run)} left in all"
    return f"{clock(left.phase)} left" + ("" if left.run is None else f", {clock(left.run)} in all")


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
            return f"architecture: {_listing(choices)}" if choices else ""
        case events.Trial(name, choices):
            return f"{name}: {_listing(choices)}"
        case events.Evidence():
            name = min(event.decisions, key=lambda decision: event.decisions[decision])
            return f"alphas: the steadiest pull is on {name} (p by chance {chance(event.p)})"
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


class QuietProgress(AbstractContextManager["QuietProgress", None]):
    """Warnings alone.

    Args:
        stream: Where they go.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __exit__(self, *error: object) -> None:
        pass

    def on_event(self, event: Event) -> None:
        """Print a warning."""
        if isinstance(event, events.Warning):
            print(visible(describe(event)), file=self._stream, flush=True)


class PlainProgress(AbstractContextManager["PlainProgress", None]):
    """One line now and then, for files, pipes and logs.

    A phase's steps are shown at its first and last step and at every tenth of it, but not more
    often than every `SOONEST` seconds, nor less often than every `LATEST`.

    Args:
        stream: Where lines go.
        pace: Tells the time left.
        every: Show every step, with learning rate and norms of the gradients.
    """

    def __init__(self, stream: TextIO, pace: Pace | None = None, every: bool = False) -> None:
        self._stream, self._every = stream, every
        self._pace = pace or Pace()
        self._shown: tuple[str, int, float] | None = None
        self._due: tuple[events.Step, Left] | None = None

    def __exit__(self, *error: object) -> None:
        self._flush()

    def on_event(self, event: Event) -> None:
        """Print a line if it is time for one."""
        self._pace.see(event)
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
        first = self._shown is None or self._shown[0] != event.phase
        if self._every or first or event.step + 1 >= event.total:
            self._flush()
            return
        assert self._shown is not None
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
        if self._every:
            parts += _details(event)
        self._print("  ".join([*parts, *filter(None, [said_of(left)])]))

    def _print(self, line: str) -> None:
        print(visible(line), file=self._stream, flush=True)


def _details(event: events.Step) -> list[str]:
    """Return what a line about a step says more where everything is told."""
    norms = {"weights": event.weight_gradient_norm, "alphas": event.alpha_gradient_norm}
    return [
        f"learning rate {event.lr:.3g}",
        *(f"gradient of {name} {norm:.3g}" for name, norm in norms.items() if norm is not None),
    ]


class LiveProgress(AbstractContextManager["LiveProgress", None]):
    """A bar with losses, alpha entropy and time left, under a log of evaluations.

    The log stays; the bar does, too, if the run is interrupted, and says how far it came.

    Args:
        console: The terminal.
        pace: Tells the time left.
    """

    def __init__(self, console: Console, pace: Pace | None = None) -> None:
        self._console = console
        self._pace = pace or Pace()
        self._step: events.Step | None = None
        self._left = Left()
        self._smooth: dict[str, float] = {}
        self._live = Live(
            console=console,
            get_renderable=self.render,
            refresh_per_second=4,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),  # what goes to a file stays out of the terminal
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.transient = not any(error)
        self._live.stop()

    def on_event(self, event: Event) -> None:
        """Renew the display; evaluations and warnings stay above it."""
        self._pace.see(event)
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
        bar = Table.grid(padding=(0, 1), expand=False)
        bar.add_row(
            Text(event.phase, "bold"),
            ProgressBar(total=event.total, completed=done, width=30),
            Text(f"{done}/{event.total}"),
            Text(said_of(self._left), "cyan"),
        )
        losses = facts((f"  {task}", f"{loss:.3f}") for task, loss in self._smooth.items())
        said = Text("  loss per task, smoothed", "dim")
        if event.entropy is not None:
            said = Text(f"  alpha entropy {event.entropy:.3f} nats", "magenta")
        return Group(bar, said, losses)
