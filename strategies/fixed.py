"""No search: one known architecture, or no module at all, gets the whole budget.

The hand-made encoders that a search is compared with are spaces of a single architecture
(`preembedd`, `mlp`), or one architecture of a larger space (`--set activation=tanh`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from prefixnas import (
    Architecture,
    Budget,
    Found,
    Recipe,
    Run,
    SearchSpace,
    Strategy,
    UserError,
    build_child,
    option,
)
from prefixnas.network.supernet import count_parameters


@dataclass(frozen=True)
class Fixed(Strategy):
    """A known architecture: from a file or a run, or the space's first options as set."""

    arch: str | None = option(
        None, "architecture.yaml, or a run directory with its space; none: first options"
    )

    takes_none: ClassVar[bool] = True

    def default_space(self) -> str | None:
        """Return the space that lies in the run directory; any architecture needs one."""
        if not self.arch:
            return None
        kept = Path(self.arch) / "space.yaml"
        return str(kept) if kept.is_file() else "default"

    def check(self, space: SearchSpace, settings: Mapping[str, str], budget: Budget) -> None:
        """Refuse an architecture that is not there, or not of the space."""
        if self.arch is not None and space.empty:
            raise UserError("keys 'arch' and 'space': the space 'none' has no architecture")
        if self.arch is not None and settings:
            raise UserError("keys 'arch' and 'set': an architecture leaves nothing to set")
        architecture = self._architecture(space, settings)
        try:
            space.validate(architecture)
        except UserError as error:
            raise UserError(f"{self.arch}: {error}" if self.arch else str(error)) from error

    def trained_at_most(self, space: SearchSpace, settings: Mapping[str, str], width: int) -> int:
        """Return how many parameters the architecture has."""
        return count_parameters(space, self._architecture(space, settings), width)

    def search(self, run: Run, recipe: Recipe) -> Found:
        """Attach the architecture with fresh weights; on the space `none`, nothing."""
        architecture = self._architecture(run.space, run.settings)
        empty, width = run.space.empty, run.objective.width
        run.reset(None if empty else build_child(run.space, architecture, width))
        return Found(architecture)

    def _architecture(self, space: SearchSpace, settings: Mapping[str, str]) -> Architecture:
        if self.arch is None:
            return space.first(settings)
        path = Path(self.arch)
        return Architecture.load(path / "architecture.yaml" if path.is_dir() else path)
