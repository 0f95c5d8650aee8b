"""A run in several processes, for the one that starts them and follows what rank 0 writes."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from prefixnas.base.files import write_text
from prefixnas.launch.config import dump_config
from prefixnas.launch.processes import launch
from prefixnas.run.event_file import parse_event
from prefixnas.run.events import Event
from prefixnas.run.ledger import kept_events
from prefixnas.run.result import SearchResult


def start_together(
    values: Mapping[str, Any],
    folder: Path,
    resume: bool,
    on_event: Callable[[Event], None] | None,
    report: bool = True,
) -> SearchResult:
    """Start `processes` ranks of `prefixnas search`, wait for them, read their result.

    Args:
        values: Every key's value.
        folder: The run directory.
        resume: Go on with the run in `folder`.
        on_event: Called with every event; what it raises ends the run.
        report: Whether plots and `report.html` are made at the end.

    Raises:
        UserError: What the ranks found wrong.
        RunLost: A rank was killed, or failed.
    """
    events = Follower(folder / "metrics.jsonl", kept_events(folder) if resume else 0)

    def watch() -> None:
        for event in events.new():
            if on_event is not None:
                on_event(event)

    command = [sys.executable, "-m", "prefixnas", "search", "--out", str(folder)]
    with tempfile.TemporaryDirectory() as place:
        config = Path(place) / "config.yaml"
        write_text(config, dump_config(values))
        command += ["--resume"] if resume else ["--config", str(config)]
        command += [] if report else ["--no-report"]
        launch(command, values["processes"], watch)
    watch()
    return SearchResult.read(folder)


class Follower:
    """Reads the events that are added to a file.

    Args:
        path: The file; it may not be there yet.
        start: Bytes at its beginning that are no news.
    """

    def __init__(self, path: Path, start: int) -> None:
        self._path, self._start = path, start

    def new(self) -> list[Event]:
        """Return the events since the last call."""
        if not self._path.is_file():
            return []
        with self._path.open("rb") as file:
            file.seek(self._start)
            lines = file.read().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith(b"\n")]
        self._start += sum(map(len, whole))
        return [parse_event(line, str(self._path)) for line in whole]
