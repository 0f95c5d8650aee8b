"""The runs that a table consists of, and where each of them is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peml.tables.file import folder_of
from peml.tables.record import RunRecord

RECORD = "row.json"


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        label: What the table calls it.
        values: The resolved configuration of its runs, at its own learning rates.
    """

    label: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
        row: The row.
        factor: Of all its learning rates.
        seed: The seed.
        steps: Joint steps.
    """

    row: Row
    factor: float
    seed: int
    steps: int

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return f"{self.row.label}, rates x {self.factor:g}, seed {self.seed}"

    @property
    def values(self) -> dict[str, Any]:
        """The resolved configuration of the run."""
        factor = self.factor * self.row.values["rate_factor"]
        own = {"rate_factor": factor, "seed": self.seed, "steps": self.steps}
        return {**self.row.values, **own}

    def folder(self, out: Path) -> Path:
        """Return the run's folder."""
        return out / folder_of(self.row.label) / f"x{self.factor:g}" / f"seed{self.seed}"

    def record(self, out: Path) -> RunRecord | None:
        """Return what the run came to; None: it is not finished.

        Raises:
            UserError: The record is damaged.
        """
        path = self.folder(out) / RECORD
        return RunRecord.read(path) if path.is_file() else None
