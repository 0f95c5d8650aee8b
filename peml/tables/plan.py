"""From a table's file to its runs: everything is looked up and checked before anything trains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peml.tables.cells import Cell, Row
from peml.tables.columns import Column, columns_of
from peml.tables.file import Paper, TableFile, paper_of
from peml.tables.record import RunRecord
from prefixnas.base.errors import UserError, unknown
from prefixnas.base.options import fields_of, renamed
from prefixnas.launch.plan import Layers, find_options, plan_run, resolve_run
from prefixnas.space.space import NO_MODULE

OWN = ("tasks", "seed", "baseline", "objective", "processes", "plugin")
"""Keys of a run that are the table's, or that its runs do not have."""

EQUAL = ("steps", "eval_limit")
"""Keys that all rows have alike."""


@dataclass(frozen=True)
class Table:
    """A table whose file was found usable.

    Attributes:
        file: What the file says.
        rows: Its rows.
        columns: Its tasks.
        paper: Numbers that a paper gives.
    """

    file: TableFile
    rows: Sequence[Row]
    columns: Sequence[Column]
    paper: Paper

    def trials(self, row: Row) -> list[Cell]:
        """Return the runs that try a row's learning rates; none if there is one factor."""
        if len(self.file.rates) == 1:
            return []
        steps = self.file.trial_steps or row.values["steps"]
        return [Cell(row, factor, self.file.trial_seed, steps) for factor in self.file.rates]

    def tries_rates(self, cell: Cell) -> bool:
        """Return whether a run tries rates, and is not one that the table shows."""
        return cell.seed == self.file.trial_seed

    def factor(self, row: Row, out: Path) -> float | None:
        """Return the factor with the best selection score; None while a trial is missing.

        Raises:
            UserError: A record is damaged, or was scored by other metrics.
        """
        if len(self.file.rates) == 1:
            return self.file.rates[0]
        scores: dict[float, float] = {}
        for cell in self.trials(row):
            if (record := cell.record(out)) is None:
                return None
            self._check(record, cell.name)
            scores[cell.factor] = record.selection
        return max(scores, key=lambda factor: scores[factor])

    def runs(self, row: Row, factor: float) -> list[Cell]:
        """Return the runs of a row that the table shows."""
        return [Cell(row, factor, seed, row.values["steps"]) for seed in self.file.seeds]

    def cells(self, out: Path) -> Iterator[Cell]:
        """Yield the runs that are known so far: trials first, then one seed after the other."""
        for row in self.rows:
            yield from self.trials(row)
        chosen = [(row, self.factor(row, out)) for row in self.rows]
        known = [self.runs(row, factor) for row, factor in chosen if factor is not None]
        for cells in zip(*known, strict=True):
            yield from cells

    def records(self, row: Row, out: Path) -> dict[int, RunRecord]:
        """Return what a row's finished runs came to, by seed.

        Raises:
            UserError: One was scored on other tasks, or by other metrics.
        """
        factor = self.factor(row, out)
        found = {} if factor is None else {c.seed: c.record(out) for c in self.runs(row, factor)}
        there = {seed: record for seed, record in found.items() if record is not None}
        for seed, record in there.items():
            where = f"{row.label}, seed {seed}"
            self._check(record, where)
            if record.validation is None:  # the trial's seed was another one then
                raise UserError(f"{where}: the run only tried rates, without validation scores")
        return there

    def _check(self, record: RunRecord, where: str) -> None:
        names = {column.name for column in self.columns}
        metrics = {column.name: list(column.metrics) for column in self.columns}
        if record.tasks.keys() not in (set(), names) or record.metrics not in (None, metrics):
            raise UserError(
                f"{where}: the run was scored on other tasks, or by other metrics; take another "
                "--out"
            )


def plan_table(file: TableFile, where: str) -> Table:
    """Resolve every row, and load the tasks.

    Args:
        file: What a table's file says.
        where: The file, for messages.

    Raises:
        UserError: An unknown key or name, or a value that a row's run does not take; tasks that
            are not usable, or not those of every row.
    """
    _refuse_keys(file, where)
    _refuse_unknown_common(file, where)
    rows = [Row(label, _resolved(file, label, where)) for label in file.rows]
    try:
        columns = columns_of({row.label: row.values for row in rows}, file.metrics)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    table = Table(file, rows, columns, paper_of(file))
    _check_runs(table, where)
    return table


def _check_runs(table: Table, where: str) -> None:
    """Plan a run of each kind: factors move rates beyond limits, trials may be too short."""
    for row in table.rows:
        runs = [table.runs(row, factor)[0] for factor in table.file.rates]
        for cell in [*table.trials(row), *runs]:
            try:
                plan_run(cell.values)
            except UserError as error:
                raise UserError(f"{where}: row {cell.name}: {error}") from error


def _refuse_keys(file: TableFile, where: str) -> None:
    """Refuse keys that are not to be set; a row may have tasks of its own."""
    for key in file.common:
        if key in OWN:
            raise UserError(f"{where}: key 'common': the key {key!r} is the table's to set")
    for label, keys in file.rows.items():
        place = f"{where}: row {label!r}: the key"
        for key in keys or {}:
            if key in OWN and key != "tasks":
                raise UserError(f"{place} {key!r} is the table's to set")
            if key in EQUAL:
                raise UserError(f"{place} {key!r} is the same for all rows; set it in 'common'")


def _layers(file: TableFile, label: str, where: str) -> Layers:
    """Return the layers of a row; it has no module unless it names a space."""
    row = dict(file.rows[label] or {})
    named = {**file.common, **row}
    fixed: dict[str, Any] = {"objective": "language-model", "baseline": "none"}
    if named.get("space", NO_MODULE if named.get("arch") is None else "") == NO_MODULE:
        fixed |= {"space": NO_MODULE, "strategy": "fixed"}
    common = {"tasks": file.tasks, **file.common}
    return [(f"{where}: common", common), (f"{where}: row {label!r}", row), ("table", fixed)]


def _resolved(file: TableFile, label: str, where: str) -> dict[str, Any]:
    """Return all keys of a row's runs; common keys that it does not have are left out."""
    layers = _layers(file, label, where)
    known = fields_of(find_options(layers)[0])
    (place, common), *own = layers
    shared = {key: v for key, v in renamed(common, known, place).items() if key in known}
    values = resolve_run([(place, shared), *own])
    try:
        plan_run(values)
    except UserError as error:
        raise UserError(f"{where}: row {label!r}: {error}") from error
    return values


def _refuse_unknown_common(file: TableFile, where: str) -> None:
    """Refuse a common key that no row has."""
    known: dict[str, Any] = {}
    for label in file.rows:
        known |= fields_of(find_options(_layers(file, label, where))[0])
    for key in renamed(file.common, known, f"{where}: common"):
        if key not in known:
            raise unknown("key", key, known, f"{where}: key 'common'")


def count(table: Table) -> Mapping[str, int]:
    """Return how many runs and joint steps a table takes: trials, the rest, both together."""
    trials = [cell for row in table.rows for cell in table.trials(row)]
    runs = [cell for row in table.rows for cell in table.runs(row, 1.0)]
    return {
        "trials": len(trials),
        "runs": len(runs),
        "steps": sum(cell.steps for cell in [*trials, *runs]),
    }
