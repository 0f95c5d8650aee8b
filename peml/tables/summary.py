"""The finished runs of a table, row by row: means, spreads, differences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from peml.tables.file import AVERAGE
from peml.tables.plan import Table
from peml.tables.record import RunRecord
from prefixnas.base.estimates import Difference, mean_and_spread, paired

Measured = float | str | None


@dataclass(frozen=True)
class RowSummary:
    """What a row came to so far.

    Attributes:
        label: The row.
        factor: Of its learning rates, the one that was chosen; None: not known yet.
        edge: Whether a factor beyond those that were tried might have been better.
        records: Its finished runs by seed.
        over: Difference of the averages to the rows that it is compared with, by their labels.
        of_paper: The paper's average; None: it gives none.
    """

    label: str
    factor: float | None
    edge: bool
    records: Mapping[int, RunRecord]
    over: Mapping[str, Difference | None]
    of_paper: Measured = None

    @property
    def averages(self) -> dict[int, float]:
        """The average over the tasks by seed."""
        return _averages(self.records)

    @property
    def average(self) -> tuple[float | None, float | None]:
        """Mean and standard deviation over the seeds of the average over the tasks."""
        return mean_and_spread(self.averages.values())

    @property
    def test(self) -> tuple[float | None, float | None]:
        """The same on the split `test`, over the tasks that have one."""
        return mean_and_spread(record.test for record in self.records.values())

    def of(self, task: str) -> tuple[float | None, float | None]:
        """Return mean and standard deviation over the seeds of a task's score."""
        return mean_and_spread(record.tasks[task] for record in self.records.values())

    def mean_of(self, name: str) -> float | None:
        """Return the mean over the seeds of a number of the records; None: none has it."""
        return _mean(getattr(record, name) for record in self.records.values())


def summarise(table: Table, out: Path) -> list[RowSummary]:
    """Return what every row came to, in the table's order.

    Raises:
        UserError: A record is damaged or was scored otherwise.
    """
    found = {row.label: table.records(row, out) for row in table.rows}
    averages = {label: _averages(records) for label, records in found.items()}
    rates = sorted(table.file.rates)
    summaries = []
    for row in table.rows:
        factor, label = table.factor(row, out), row.label
        over = {
            other: None if other == label else paired(averages[label], averages[other])
            for other in table.file.against
        }
        edge = len(rates) > 1 and factor in (rates[0], rates[-1])
        of_paper = _paper_average(table, label)
        summaries.append(RowSummary(label, factor, edge, found[label], over, of_paper))
    return summaries


def _averages(records: Mapping[int, RunRecord]) -> dict[int, float]:
    return {seed: r.validation for seed, r in records.items() if r.validation is not None}


def _paper_average(table: Table, label: str) -> Measured:
    names: Sequence[str] = [name.lower() for name in table.paper.columns]
    if AVERAGE not in names or label not in table.paper.rows:
        return None
    return table.paper.rows[label][names.index(AVERAGE)]


def _mean(values: Iterable[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return fmean(there) if there else None
