"""Carrying a planned run out: its folder, the objective, the search, the report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

from prefixnas.base.errors import UserError
from prefixnas.base.extras import lacking
from prefixnas.base.files import make_folder, refuse_used, sweep, write_text
from prefixnas.base.locks import alone
from prefixnas.launch.config import RunConfig, dump_config, hash_of_config
from prefixnas.launch.plan import RunPlan, plan_run
from prefixnas.launch.together import start_together
from prefixnas.report.trackers import Trackers, check_installed
from prefixnas.run.checkpoint import noted
from prefixnas.run.events import Event, Warning
from prefixnas.run.objective import Objective
from prefixnas.run.ranks import Ranks, join, leave, ranks_here, said_once
from prefixnas.run.result import SearchResult
from prefixnas.run.run import Run
from prefixnas.run.search import search
from prefixnas.space.space import SearchSpace


def start_run(
    values: Mapping[str, Any],
    folder: Path,
    *,
    resume: bool = False,
    on_event: Callable[[Event], None] | None = None,
    report: bool = True,
) -> SearchResult:
    """Search as a resolved configuration says; leave a run directory.

    Where the key `processes` asks for several and this is a lone one, they are started from here.

    Args:
        values: Every key's value.
        folder: The run directory, which must be new or empty.
        resume: Go on with the run in `folder`, if it was begun.
        on_event: Called with every event, after it was written.
        report: Whether plots and `report.html` are made at the end.

    Raises:
        UserError: What cannot be planned or built, a folder that holds something else, or another
            number of processes than the key `processes` says.
        RunLost: One of several processes was killed, or failed.
    """
    ranks = ranks_here()
    plan = plan_run(values)
    check_installed(plan.run.report_to)
    if ranks.count == 1 < plan.run.processes:
        resume = _goes_on(folder, resume)
        return start_together(values, folder, resume, on_event, report)
    if ranks.count != plan.run.processes:
        raise UserError(
            f"key 'processes': the run takes {plan.run.processes}, and {ranks.count} were started "
            "together"
        )
    resume = ranks.carry_out(lambda: ranks.first and _goes_on(folder, resume))
    objective = plan.build()
    if ranks.count > 1 and not objective.splits_batches:
        raise UserError(
            f"key 'processes': objective {objective.name!r} does not split its batches over "
            "several processes; start one"
        )
    with _held(folder, resume) if ranks.first else nullcontext():
        if ranks.first and resume:
            _refuse_edited(folder, values)
        reporting = Trackers(plan.run.report_to, folder, plan.run.project, values)
        with reporting if ranks.first else nullcontext():
            run = _opened(plan, values, folder, objective, reporting, resume, on_event)
            return _carry_out(run, plan, report=report)


def _opened(
    plan: RunPlan,
    values: Mapping[str, Any],
    folder: Path,
    objective: Objective,
    reporting: Trackers,
    resume: bool,
    on_event: Callable[[Event], None] | None,
) -> Run:
    """Open the run of a plan in a folder that is held."""
    first = ranks_here().first
    if first and not resume:
        write_text(folder / "config.yaml", dump_config(values))
    run = plan.open(folder, objective, _each(reporting.on_event, on_event), resume=resume)
    if first and resume:
        reporting.catch_up()
    run.once(CONFIGURATION, lambda: hash_of_config(values))
    if first and resume:  # and not refused: what a refusal leaves is as it was
        write_text(folder / "config.yaml", dump_config(values))
    return run


def _carry_out(run: Run, plan: RunPlan, *, report: bool) -> SearchResult:
    result = search(run, plan.strategy, plan.run, baseline=plan.baseline)
    if run.ranks.first and report:
        _report(run)
    return result


def _each(*listeners: Callable[[Event], None] | None) -> Callable[[Event], None]:
    """Return what tells an event to all who listen."""
    there = [listener for listener in listeners if listener is not None]

    def tell(event: Event) -> None:
        for listener in there:
            listener(event)

    return tell


class Display(Protocol):
    """Something that shows events as they come."""

    def on_event(self, event: Event) -> None:
        """Show it."""


def start_here(
    values: Mapping[str, Any],
    out: Path | None = None,
    *,
    resume: bool = False,
    on_event: Callable[[Event], None] | None = None,
    display: AbstractContextManager[Display] | None = None,
    report: bool = True,
) -> tuple[Ranks, SearchResult]:
    """Carry a run out in this process, which may be one of several that were launched together.

    Args:
        values: Every key's value.
        out: The run directory; None: `free_folder`.
        resume: Go on with the run in `out`, if it was begun.
        on_event: Called with every event, on the first rank alone.
        display: What shows the events there, entered around the run.
        report: Whether plots and `report.html` are made at the end.

    Returns:
        This process's place among all, who have parted, and the result.

    Raises:
        UserError: What `start_run` raises.
    """
    ranks = join()
    with said_once(ranks):
        folder = Path(ranks.agree(str(out or free_folder(plan_run(values).run))))
        if not ranks.first:
            result = start_run(values, folder, resume=resume, report=report)
        else:
            with display or nullcontext() as shown:
                tell = _each(on_event, None if shown is None else shown.on_event)
                result = start_run(values, folder, resume=resume, on_event=tell, report=report)
    leave()
    return ranks, result


def free_folder(run: RunConfig) -> Path:
    """Return the folder of a run that names none: `runs/SPACE-STRATEGY-seedN`, or one behind it."""
    stem = f"{Path(run.space).stem}-{run.strategy}-seed{run.seed}"
    number = 1
    while True:
        folder = Path("runs") / (stem if number == 1 else f"{stem}-{number}")
        if not folder.exists():
            return folder
        number += 1


def _report(run: Run) -> None:
    """Write the report, or say what it needs: a run is not lost for want of its plots."""
    line = lacking("matplotlib", "the report of this run")
    if line is not None:
        run.emit(Warning(line))
    else:
        write_report(run.folder, run.space)


def write_report(folder: Path, space: SearchSpace | None = None) -> Path:
    """Write the report of a run, as `prefixnas.report.run_page.write_report` does."""
    from prefixnas.report import run_page  # it draws

    return run_page.write_report(folder, space)


CONFIGURATION = "configuration"
"""The note of what a run was begun with."""


def _refuse_edited(folder: Path, values: Mapping[str, Any]) -> None:
    """Refuse to go on with a run whose configuration was edited, before anything is changed.

    A run of an earlier version has no note of it.
    """
    notes: Mapping[str, Any] = noted(folder / "checkpoint", "notes", {})
    if notes.get(CONFIGURATION) not in (None, hash_of_config(values)):
        raise UserError(
            f"{folder / 'config.yaml'}: was changed since the run began; put it back as it was, or "
            "begin a new run"
        )


@contextmanager
def _held(folder: Path, resume: bool) -> Iterator[None]:
    """Hold a run's folder; another process may have begun in it since it was looked at."""
    make_folder(folder)
    with alone(folder, "runs"):
        _goes_on(folder, resume)
        sweep(folder)
        yield


def _goes_on(folder: Path, resume: bool) -> bool:
    return refuse_used(folder, "config.yaml", "run", resume=resume)
