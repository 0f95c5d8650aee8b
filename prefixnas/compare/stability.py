"""The stability of differentiable searches: the paper's table 18, over relaxations and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from prefixnas.base.errors import UserError, unknown
from prefixnas.base.estimates import mean_and_spread
from prefixnas.base.files import write_csv
from prefixnas.compare.agreement import OVERALL, Agreement, agreement
from prefixnas.report.grid import Grid, Number, chance, number
from prefixnas.report.plots.alphas import Norms, alpha_gradient_norms
from prefixnas.run import events
from prefixnas.run.evaluation import ARGMAX, MIXTURE, SOFT, TRAINED
from prefixnas.run.record import Record, alpha_matrix, decisions, read_search
from prefixnas.space.decisions import Decision


@dataclass(frozen=True)
class Measured:
    """What one search says about its stability.

    Attributes:
        record: The run.
        label: The group it belongs to.
        norms: Norm of the alphas' gradient per step.
        numbers: Mean over the steps of that norm, its standard deviation over them, mean variance
            of the alphas while they moved, validation scores and gaps; None where not recorded.
    """

    record: Record
    label: str
    norms: Norms
    numbers: Mapping[str, float | None]


#: The columns of the table: keys of `Measured.numbers` with their titles.
COLUMNS = {
    "gradient_norm": "gradient norm",
    "gradient_norm_sd": "its sd over steps",
    "variance": "variance of alpha",
    "trained_child": "trained child",
    "gap": "gap",
    "soft_gap": "gap from softmax",
}


def read_searches(folders: Sequence[Path], by: str) -> list[Measured]:
    """Read finished differentiable runs.

    Args:
        folders: Run folders.
        by: The key of their configuration that makes the groups.

    Raises:
        UserError: Not a run, named twice, not finished, without alphas, or without that key.
    """
    seen: dict[Path, Path] = {}
    found = []
    for folder in folders:
        if (place := folder.resolve()) in seen:
            raise UserError(f"{folder}: named twice")
        seen[place] = folder
        record = read_search(folder)
        if by not in record.config:
            raise unknown("key", by, map(str, record.config), f"--by: {folder / 'config.yaml'}")
        found.append(_measure(record, str(record.config[by])))
    return found


def _measure(record: Record, label: str) -> Measured:
    norms = alpha_gradient_norms(record)
    moved = [e.variance for e in record.of(events.Alpha) if e.gradient_norm is not None]
    scores = {name: found.score for name, found in record.validated().items()}
    numbers: dict[str, float | None] = {
        "gradient_norm": float(norms.values.mean()) if len(norms) else None,
        "gradient_norm_sd": float(norms.values.std(ddof=1)) if len(norms) > 1 else None,
        "variance": mean_and_spread(moved)[0],
        "mixture": scores.get(MIXTURE),
        "argmax_child": scores.get(ARGMAX),
        "trained_child": scores.get(TRAINED),
        "gap": record.gap(),
        "soft_gap": record.gap(SOFT if SOFT in scores else MIXTURE),
    }
    return Measured(record, label, norms, numbers)


def grouped(searches: Sequence[Measured]) -> dict[str, list[Measured]]:
    """Return the searches by group, in order of appearance."""
    groups: dict[str, list[Measured]] = {}
    for search in searches:
        groups.setdefault(search.label, []).append(search)
    return groups


def differences(searches: Sequence[Measured], by: str) -> list[str]:
    """Return the keys in which the runs differ besides their seed and `by`."""
    own = {by, "seed", *_NO_MATTER}
    keys = dict.fromkeys(key for s in searches for key in s.record.config if key not in own)
    first = searches[0].record.config
    return [
        key for key in keys if any(s.record.config.get(key) != first.get(key) for s in searches)
    ]


_NO_MATTER = (
    *("versions", "checkpoint_every", "baseline", "probe_every", "probe_batches"),
    *("report_to", "project"),
)
"""Keys that change nothing in a search."""


def share_a_seed(searches: Sequence[Measured]) -> bool:
    """Return whether two of them have one seed, and so begin alike and see the same batches."""
    return len({search.record.start("seed") for search in searches}) < len(searches)


def agreements(searches: Sequence[Measured]) -> list[Agreement]:
    """Return how far the searches of one group agree on the decisions that all of them had.

    Searches that share a seed are not independent, so there is no p value of what they agree on.
    """
    common = [
        name
        for name in decisions(searches[0].record)
        if all(name in decisions(search.record) for search in searches)
    ]
    options = {name: tuple(alpha_matrix(searches[0].record, name)[1]) for name in common}
    searched = [
        Decision(name, labels, "alpha", _inside(name, options)) for name, labels in options.items()
    ]
    found = agreement([search.record.architecture or {} for search in searches], searched)
    return [replace(row, p_value=None) for row in found] if share_a_seed(searches) else found


def _inside(
    name: str, options: Mapping[str, Sequence[str]]
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return inside which options of other decisions one stands, as its name says."""
    return tuple(
        (outer, (label,))
        for outer, labels in options.items()
        for label in labels
        if name.startswith(f"{outer}={label}/")
    )


def tables(groups: Mapping[str, Sequence[Measured]], by: str) -> Group:
    """Return the table of stability and that of agreement, to be printed."""
    parts: list[RenderableType] = [
        Text("Stability: mean over runs, ± standard deviation over runs", "bold"),
        number_table(groups, by),
    ]
    if (same := agreement_table(groups)).rows:
        parts += [Text("Share of the pairs of runs that took the same option", "bold"), same]
    return Group(*parts)


def number_table(groups: Mapping[str, Sequence[Measured]], by: str) -> Grid:
    """Return the table of stability: a row per number, a column per group."""
    head = [by, *(Number(f"{label} ({len(members)})") for label, members in groups.items())]
    rows = []
    for key, title in COLUMNS.items():
        found = [mean_and_spread(s.numbers[key] for s in members) for members in groups.values()]
        rows.append([title, *(number(mean, ".4f", spread) for mean, spread in found)])
    return Grid(head, rows)


def agreement_table(groups: Mapping[str, Sequence[Measured]]) -> Grid:
    """Return how far the runs of each group agree: a row per decision, then one for all of them.

    There are no rows where no group has two runs.
    """
    found = [{row.decision: row for row in agreements(members)} for members in groups.values()]
    names = list(dict.fromkeys(name for rows in found for name in rows))
    cells = []
    for name in sorted(names, key=lambda name: name == OVERALL):
        rows = [of_group.get(name) for of_group in found]
        by_chance = {row.chance for row in rows if row is not None}
        drawn = by_chance.pop() if len(by_chance) == 1 else None  # spaces may differ
        shares = (number(row.share if row else None, ".2f") for row in rows)
        cells.append([name, *shares, number(drawn, ".2f")])
    if names:
        overall = [rows.get(OVERALL) for rows in found]
        p_values = (chance(row.p_value if row else None) for row in overall)
        cells.append(["p: chance agrees as much", *p_values, ""])
    return Grid(["decision", *map(Number, [*groups, "chance"])], cells)


def rows_of_tables(
    groups: Mapping[str, Sequence[Measured]], by: str
) -> dict[str, list[dict[str, object]]]:
    """Return the rows of `stability` (one a group), `runs` (one a run) and `agreement`."""
    rows: list[dict[str, object]] = []
    runs: list[dict[str, object]] = []
    same: list[dict[str, object]] = []
    for label, members in groups.items():
        row: dict[str, object] = {by: label, "runs": len(members)}
        for key in members[0].numbers:
            mean, spread = mean_and_spread([search.numbers[key] for search in members])
            row |= {f"{key}_mean": mean, f"{key}_sd": spread}
        rows.append(row)
        for search in members:
            seed = search.record.start("seed")
            steps = len(search.norms)
            names = {by: label, "run": search.record.name, "seed": seed, "alpha_steps": steps}
            runs.append({**names, **search.numbers})
        same += [{by: label, **vars(found)} for found in agreements(members)]
    return {"stability": rows, "runs": runs, "agreement": same}


def write_tables(folder: Path, groups: Mapping[str, Sequence[Measured]], by: str) -> list[Path]:
    """Write `stability.csv` (a row per group), `runs.csv` (per run) and `agreement.csv`.

    Raises:
        UserError: A file cannot be written.
    """
    paths = []
    for name, lines in rows_of_tables(groups, by).items():
        if lines:
            write_csv(folder / f"{name}.csv", lines)
            paths.append(folder / f"{name}.csv")
    return paths
