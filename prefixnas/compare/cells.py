"""One run of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prefixnas.launch.config import read_config, refuse_other

REFERENCES = "references"
"""The folder of the hand-made modules, which belong to no space that is searched."""


CellKind = Literal["search", "draw", "hand-made", "retrained"]


@dataclass(frozen=True)
class Cell:
    """One run of a comparison.

    Attributes:
        kind: What it is for.
        space: The space's name in tables; `REFERENCES` for hand-made modules.
        label: The variant's.
        seed: The seed that it counts for.
        folder: Its run directory.
        values: Its resolved configuration.
        refused: Why it cannot be run; None: it can.
        needs: The run whose architecture it trains.
    """

    kind: CellKind
    space: str
    label: str
    seed: int
    folder: Path
    values: Mapping[str, Any]
    refused: str | None = None
    needs: Path | None = None

    @property
    def name(self) -> str:
        """What the cell is called in messages."""
        return "/".join(self.folder.parts[-3:])

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return (self.folder / "result.json").is_file()


def refuse_other_cells(cells: Sequence[Cell]) -> None:
    """Refuse cells that were begun under another configuration, or on another space.

    Raises:
        UserError: Names the run and the first key that differs, or the space.
    """
    for cell in cells:
        refuse_other(cell.folder, cell.values)


def _begun(folder: Path) -> dict[str, Any]:
    """Return the configuration of a run that was begun; empty if it was not."""
    path = folder / "config.yaml"
    return read_config(path) if path.is_file() else {}
