"""Transfer of architectures between groups of tasks: the paper's table 14, with a control.

Per ordered pair of groups and seed there are four scores on the target's validation split:

- searched and trained: the search took place on the target itself;
- only trained: the architecture that was found on the source, trained on the target from fresh
  weights, for as many steps as search and training have together;
- neither: what the source's run trained, as it is (see `prefixnas.compare.carried`);
- first options: an architecture that nobody searched, trained like "only trained". If it scores as
  high, the transfer says nothing about the search.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

from prefixnas.base.errors import UserError
from prefixnas.base.estimates import mean_and_spread
from prefixnas.base.files import write_csv
from prefixnas.base.options import fields_of, resolve
from prefixnas.compare.cells import Cell
from prefixnas.launch.plan import Layers, find_options, plan_run
from prefixnas.report.grid import Grid, Number, number
from prefixnas.run.evaluation import TRAINED
from prefixnas.run.result import read_result

HELD = ("seed", "baseline", "arch")
"""Keys of a run that belong to the table."""

SEARCHED, ONLY_TRAINED = "searched and trained", "only trained"
NEITHER, FIRST = "neither", "first options"


@dataclass(frozen=True)
class Transfer:
    """A table of transfers to be made.

    Attributes:
        groups: Per group of tasks its layers of configuration.
        seeds: Seeds of search and training.
        control: Whether the column of the first options is made.
        out: Where everything goes.
    """

    groups: Mapping[str, Layers]
    seeds: Sequence[int]
    control: bool
    out: Path

    def cells(self) -> list[Cell]:
        """Return all runs, in an order in which each comes after the one it needs.

        Raises:
            UserError: A mistake in the configuration of a group.
        """
        return list(self._cells())

    def _cells(self) -> Iterator[Cell]:
        for seed in self.seeds:
            for group in self.groups:
                yield self._cell(group, SEARCHED, seed, self.searched(group, seed), {})
                if self.control:
                    folder = self.first(group, seed)
                    yield self._cell(group, FIRST, seed, folder, {"strategy": "fixed"})
            for source, target in permutations(self.groups, 2):
                found = self.searched(source, seed)
                own = {"strategy": "fixed", "arch": str(found)}
                yield self._cell(
                    target, ONLY_TRAINED, seed, self.given(source, target, seed), own, found
                )

    def searched(self, group: str, seed: int) -> Path:
        """Return the folder of the search on a group."""
        return self.out / group / "searched" / f"seed{seed}"

    def given(self, source: str, target: str, seed: int) -> Path:
        """Return the folder of the training on `target` with the architecture of `source`."""
        return self.out / target / f"from-{source}" / f"seed{seed}"

    def first(self, group: str, seed: int) -> Path:
        """Return the folder of the training with the space's first options."""
        return self.out / group / "first-options" / f"seed{seed}"

    def carried(self, source: str, target: str, seed: int) -> Path:
        """Return the file with the score of what `source` trained, on `target`."""
        return self.out / target / f"from-{source}" / f"neither-seed{seed}.json"

    def _cell(
        self,
        group: str,
        label: str,
        seed: int,
        folder: Path,
        own: Mapping[str, Any],
        needs: Path | None = None,
    ) -> Cell:
        layers = self.groups[group]
        searching, names = find_options(layers)
        strategy = {"strategy": names["strategy"], "objective": names["objective"], **own}
        options, _ = find_options([*layers, ("command", strategy)])
        # What only the search can be told (its relaxation, say) means nothing to a training.
        known, before = fields_of(options), fields_of(searching)
        skipped = {key for key in before if key not in known}
        skipped |= {"set"} if needs is not None else set()  # the architecture says it all
        kept = [
            (where, {k: v for k, v in layer.items() if k not in skipped}) for where, layer in layers
        ]
        fixed = {**strategy, "seed": seed, "baseline": "none"}
        values = resolve(options, [*kept, ("command", fixed)])
        if needs is None:
            plan_run(values)
        return Cell("search", group, label, seed, folder, values, None, needs)

    def rows(self, neither: Mapping[Path, Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the scores per direction and seed; None for a cell that did not end.

        Args:
            neither: What is known of the cells without a training, by file.
        """
        found = []
        for source, target in permutations(self.groups, 2):
            for seed in self.seeds:
                carried = neither.get(self.carried(source, target, seed), {})
                row: dict[str, Any] = {
                    "source": source,
                    "target": target,
                    "seed": seed,
                    SEARCHED: _score(self.searched(target, seed)),
                    ONLY_TRAINED: _score(self.given(source, target, seed)),
                    NEITHER: carried.get("score"),
                }
                if self.control:
                    row[FIRST] = _score(self.first(target, seed))
                row["tensors carried over"] = carried.get("carried")
                row["tensors left fresh"] = carried.get("fresh")
                found.append(row)
        return found


def _score(folder: Path) -> float | None:
    result = read_result(folder)
    column = result["columns"].get(TRAINED) if result is not None else None
    return None if column is None else float(column["score"])


def table(rows: Sequence[Mapping[str, Any]]) -> Grid:
    """Return the table: a row per direction, mean and spread over seeds."""
    columns = [name for name in (SEARCHED, ONLY_TRAINED, NEITHER, FIRST) if name in rows[0]]
    directions: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        directions.setdefault(f"{row['source']} → {row['target']}", []).append(row)
    cells = []
    for direction, members in directions.items():
        found = [mean_and_spread(row[name] for row in members) for name in columns]
        cells.append([direction, *(number(mean, spread=spread) for mean, spread in found)])
    return Grid(["source → target", *map(Number, columns)], cells)


def write_table(rows: Sequence[Mapping[str, Any]], out: Path) -> Path:
    """Write `transfer.csv`, a row per direction and seed.

    Raises:
        UserError: The file cannot be written.
    """
    write_csv(out / "transfer.csv", rows)
    return out / "transfer.csv"


def group_names(files: Sequence[Path]) -> dict[str, Path]:
    """Return the groups by name: the files' names without their ending.

    Raises:
        UserError: Fewer than two, or two of one name.
    """
    names = {file.stem: file for file in files}
    if len(files) < 2:
        raise UserError("name at least two groups of tasks, a YAML file of keys each")
    if len(names) < len(files):
        raise UserError(f"two groups have the same name: {', '.join(map(str, files))}")
    return names
