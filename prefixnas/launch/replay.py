"""The search of a run once more, with probes: the same steps, measured on the way."""

from __future__ import annotations

import math
from collections.abc import Callable

from prefixnas.base.errors import UserError
from prefixnas.base.files import make_folder, write_text
from prefixnas.base.options import fields_of
from prefixnas.launch.config import dump_config, read_config, refuse_change, refuse_former
from prefixnas.launch.plan import find_options, plan_run, resolve_run
from prefixnas.run import events
from prefixnas.run.events import Event
from prefixnas.run.record import Record, read_record
from prefixnas.run.turns import before_search


def search_again(
    record: Record,
    every: int,
    batches: int,
    on_event: Callable[[Event], None] | None = None,
) -> Record:
    """Repeat the search phase of a run in its folder `replay/`, with probes.

    A search is deterministic, so it takes the same steps again. One that was interrupted goes on,
    one that is there already with the same probes is read.

    Args:
        record: The run.
        every: Steps between two probes.
        batches: Batches of each.
        on_event: Called with every event.

    Raises:
        UserError: The run's configuration cannot be used any more, another version made the run, or
            its strategy has no probes.
    """
    folder, source = record.folder / "replay", record.folder / "config.yaml"
    stored = read_config(source)
    refuse_former(stored, fields_of(find_options([(str(source), stored)])[0]), record.folder)
    values = resolve_run([(str(source), stored)])
    refuse_change(stored, values, record.folder)
    if "probe_every" not in values:
        raise UserError(f"{record.folder}: the strategy {values['strategy']!r} has no probes")
    kept = record.folder / "space.yaml"
    values |= {"probe_every": every, "probe_batches": batches}
    values |= {"space": str(kept)} if kept.is_file() else {}
    plan = plan_run(values)
    text = dump_config(values)
    there = folder / "config.yaml"
    same = there.is_file() and there.read_text(encoding="utf-8") == text
    objective = plan.build()
    make_folder(folder)
    write_text(there, text)
    run = plan.open(folder, objective, on_event, resume=same)
    if objective.optional:
        run.reset(None)  # as before any search: what it draws at random comes first
    before_search(run, plan.run)
    plan.strategy.search(run, plan.run)
    return read_record(folder)


def difference(first: Record, second: Record) -> float:
    """Return the largest difference of the probabilities that two searches recorded.

    It is 0 on one device with one number of threads, and infinite if the searches do not even have
    the same records.
    """
    courses = [
        [
            ((event.step, name, option), probability)
            for event in record.of(events.Alpha)
            for name, options in event.probabilities.items()
            for option, probability in options.items()
        ]
        for record in (first, second)
    ]
    if [place for place, _ in courses[0]] != [place for place, _ in courses[1]]:
        return math.inf
    pairs = zip(*courses, strict=True)
    return max((abs(a - b) for (_, a), (_, b) in pairs), default=0.0)
