"""Carrying out the runs of a table; several processes on one folder share them."""

from __future__ import annotations

import gc
import shutil
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from torch import nn

from peml.objective.objective import JointObjective
from peml.tables.cells import RECORD, Cell
from peml.tables.columns import measured
from peml.tables.plan import Table
from peml.tables.record import RunRecord
from peml.tables.saved import saved_bytes
from prefixnas import Run, SearchResult, search
from prefixnas.base.errors import RunLost, UserError
from prefixnas.base.files import make_folder, sweep, write_text
from prefixnas.base.locks import LOCK, try_lock
from prefixnas.launch.config import dump_config, refuse_other
from prefixnas.launch.plan import plan_run
from prefixnas.run.checkpoint import STATE
from prefixnas.run.evaluation import TRAINED
from prefixnas.run.event_file import read_events
from prefixnas.run.events import Step
from prefixnas.run.objective import Part

CONFIG = "config.yaml"
PAUSE = 2.0
"""Seconds between two looks for runs that wait for those of other processes."""


def refuse_other_runs(table: Table, out: Path) -> None:
    """Refuse runs in the folder that were begun under another configuration, or on another space.

    Raises:
        UserError: Names the run and the first key that differs, or the space.
    """
    for row in table.rows:
        every = [cell for factor in table.file.rates for cell in table.runs(row, factor)]
        for cell in [*table.trials(row), *every]:
            refuse_other(cell.folder(out), cell.values)


def work(table: Table, out: Path, told: Callable[[Cell], None]) -> dict[str, str]:
    """Carry out what is due and not taken by another process, until nothing is due.

    A row that fails is left; the others go on.

    Args:
        table: The table.
        out: The folder of its runs.
        told: Called with every run that this process finished.

    Returns:
        Why a row failed, by its label.
    """
    failed: dict[str, str] = {}
    for cell in table.cells(out):
        if not _open(cell, out):  # a kill may have come between its record and the end
            _tidy(cell.folder(out))
    while due := [c for c in table.cells(out) if c.row.label not in failed and _open(c, out)]:
        for cell in due:
            try:
                taken = _take(table, cell, out, told)
            except (UserError, RunLost) as error:
                failed[cell.row.label], taken = str(error), True
            if taken:
                break
        else:  # all of them are taken; more may be due once the others have finished
            time.sleep(PAUSE)
    return failed


def _open(cell: Cell, out: Path) -> bool:
    return not (cell.folder(out) / RECORD).is_file()


def _take(table: Table, cell: Cell, out: Path, told: Callable[[Cell], None]) -> bool:
    """Carry a run out, unless another process is at it: False."""
    folder = cell.folder(out)
    make_folder(folder)
    if (lock := try_lock(folder / LOCK)) is None:
        return False
    with lock:
        if _open(cell, out):
            sweep(folder)
            refuse_other(folder, cell.values)
            carry_out(table, cell, folder)
            gc.collect()  # a model in a circle of references would stay beside the next
            told(cell)
    return True


def carry_out(table: Table, cell: Cell, folder: Path) -> None:
    """Train, score, and keep what the table needs; a killed run goes on.

    What only tries rates is scored on the split that they are chosen by, and nowhere else.

    Raises:
        UserError: The model or the method refuses the problem.
        RunLost: The run cannot go on.
    """
    plan = plan_run(cell.values)
    objective = plan.build()
    assert isinstance(objective, JointObjective)
    objective.tasks = measured(objective.tasks, table.file.metrics)
    write_text(folder / CONFIG, dump_config(cell.values))
    begun = (folder / "checkpoint" / STATE).is_file()
    run = plan.open(folder, objective, resume=begun, blind=table.tries_rates(cell))
    result = search(run, plan.strategy, plan.run, baseline="none")
    measure(run, objective, result).write(folder / RECORD)
    _tidy(folder)


def _tidy(folder: Path) -> None:
    """Take away what a finished run does not need."""
    for name in ("checkpoint", "adapter"):
        shutil.rmtree(folder / name, ignore_errors=True)


def measure(run: Run, objective: JointObjective, result: SearchResult) -> RunRecord:
    """Return what a table keeps of a run that has just ended."""
    trained = result.columns[TRAINED]
    weights = sum(w.numel() for group in objective.parameters() for w in group["params"])
    unused = weights_not_in_use(objective)
    return RunRecord(
        result.selected.score,
        None if trained is None else trained.score,
        {} if trained is None else dict(trained.task_scores),
        weights,
        weights - unused,
        most_saved(objective, run.module, run.seed),
        seconds_a_step(run.folder),
        {task.name: list(task.metrics) for task in objective.tasks},
        dict(result.tested[TRAINED].task_scores) if TRAINED in result.tested else None,
    )


def most_saved(objective: JointObjective, module: nn.Module | None, seed: int) -> int:
    """Return the most bytes that a training step keeps; where parts train in turn, of any part.

    It starts anew each time, so that all rows are measured on one batch.
    """
    first = None if objective.order == "own first" else module
    own = objective.method.parameters()
    turns: dict[Part, nn.Module | None] = {"own": first, "module": module}
    if objective.order == "together":
        turns = {"both": module}
    found = []
    for part, body in turns.items():
        objective.turn("both")
        objective.reset(body, seed)
        objective.turn(part)
        found.append(saved_bytes(objective, own))
    objective.turn("both")
    return max(found)


def weights_not_in_use(objective: JointObjective) -> int:
    """Return how many trained numbers take no part in a pass of one task, at least.

    The largest head is counted as used.
    """
    method = objective.method
    other = sum(weight.numel() for weight in method.parameters()) - method.weights_in_use()
    heads = [] if objective.heads is None else list(objective.heads.layers.values())
    sizes = [sum(weight.numel() for weight in head.parameters()) for head in heads]
    return other + sum(sizes) - max(sizes, default=0)


def seconds_a_step(folder: Path) -> float | None:
    """Return the median time of a joint step, what lies between steps apart; None: none is known.

    It is taken between events of following steps of one phase.
    """
    found: list[float] = []
    for before, event in pairwise(read_events(folder)):
        if isinstance(before, Step) and isinstance(event, Step) and before.phase == event.phase:
            steps, seconds = event.step - before.step, event.time - before.time
            if steps > 0 and seconds >= 0:
                found.append(seconds / steps)
    return statistics.median(found) if found else None
