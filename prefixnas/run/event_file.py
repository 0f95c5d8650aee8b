"""The file `metrics.jsonl` of a run, read back as events."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from prefixnas.base.errors import UserError
from prefixnas.base.files import parse_json
from prefixnas.run.events import Event, Other, Warning

FORMER_NAMES = {
    "argmax": "argmax child",
    "trained": "trained child",
    "selected": "trained child",
    "without": "baseline",
}
"""What evaluations and phases were called in runs of version 0.1."""


def parse_event(line: str | bytes, where: str) -> Event:
    """Read a line of `metrics.jsonl`.

    Raises:
        ValueError: It is no JSON.
        UserError: It is no event, or a key of its class is missing or of another type.
    """
    data = parse_json(line)
    if not isinstance(data, dict) or not isinstance(data.get("event"), str):
        raise UserError(f"{where}: not an event, which is an object with the key 'event'")
    kind, time = data.pop("event"), data.pop("time", 0.0)
    cls = Event.kinds.get(kind)
    if cls is None or cls is Other:
        return Other(kind, data, time=time)
    for place in {"name", "phase"} & set(data):
        data[place] = FORMER_NAMES.get(str(data[place]), data[place])
    try:
        event: Event = _adapter(kind).validate_python({**data, "time": time}, strict=False)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        if first["type"] == "missing":
            raise UserError(f"{where}: the event {kind!r} lacks the key {key!r}") from error
        raise UserError(
            f"{where}: the event {kind!r} holds {data.get(key)!r} as {key!r}"
        ) from error
    return event


@functools.cache
def _adapter(kind: str) -> TypeAdapter[Any]:
    return TypeAdapter(Event.kinds[kind])


def read_events(run_dir: Path) -> list[Event]:
    """Read `metrics.jsonl` of a run.

    A last line that was cut off when the run was killed is left out; a warning event says so.

    Raises:
        UserError: No such run, or a damaged line, with its number.
    """
    path = run_dir / "metrics.jsonl"
    if not run_dir.is_dir():
        raise UserError(f"{run_dir}: no such run folder")
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError as error:
        raise UserError(f"{run_dir}: not a run folder, it has no metrics.jsonl") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    filled = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    events: list[Event] = []
    for number, line in filled:
        try:
            events.append(parse_event(line, f"{path}, line {number}"))
        except ValueError as error:
            if number < filled[-1][0]:
                raise UserError(f"{path}, line {number}: not valid JSON") from error
            time = events[-1].time if events else 0.0
            events.append(Warning(f"metrics.jsonl, line {number}: cut off, left out", time=time))
    return events
