"""Rows of one table under one recipe: equal steps, equally many learning rates, the same seeds.

Every row is tried with all its learning rates times 0.5, 1 and 2, on a seed of its own (100), and
the factor with the best score on the selection split is taken; the validation split chooses
nothing. Then it is trained with every seed. A row says how it differs from the suite, and is a run
of `prefixnas search` without baselines; `space: none` is one of `peml train` without a prefix.

    python benchmarks/rows.py benchmarks/rows/embedded.yaml --out rows/embedded
    python benchmarks/rows.py benchmarks/rows/embedded.yaml --out rows/embedded --table

Finished runs are kept: the first command goes on where it was stopped, and several of them on one
folder share the work. `$MODELS` and `$DATA` in a file are environment variables.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from scipy import stats

from prefixnas.base.files import write_text
from prefixnas.base.locks import LOCK, try_lock
from prefixnas.launch.plan import plan_run, resolve_run
from prefixnas.run.evaluation import TRAINED
from prefixnas.run.search import search
from prefixnas.space.space import NO_MODULE

FACTORS = (0.5, 1.0, 2.0)
TRIAL_SEED = 100
RATES = ("learning_rate", "prefix_learning_rate", "gate_learning_rate", "head_learning_rate")


@dataclass(frozen=True)
class Cell:
    """One run: a row with a factor of its learning rates and a seed."""

    row: str
    factor: float
    seed: int

    def folder(self, out: Path) -> Path:
        """Return the run's folder."""
        return out / self.row.replace(" ", "-") / f"x{self.factor:g}" / f"seed{self.seed}"

    def result(self, out: Path) -> dict[str, Any] | None:
        """Return what the table needs; None: not finished."""
        file = self.folder(out) / "row.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def values_of(suite: Mapping[str, Any], cell: Cell) -> dict[str, Any]:
    """Return the keys of the run."""
    keys = {**suite["common"], **(suite["rows"][cell.row] or {})}
    if keys.get("space") == NO_MODULE:
        keys["strategy"] = "fixed"
    for rate in RATES:
        if rate in keys:
            keys[rate] = keys[rate] * cell.factor
    if cell.seed == TRIAL_SEED:
        keys["steps"] = suite.get("trial_steps", keys["steps"])
    return {**keys, "seed": cell.seed, "baseline": "none"}


def carry_out(suite: Mapping[str, Any], cell: Cell, out: Path) -> None:
    """Train, score on both splits, and keep what the table needs."""
    keys, folder = values_of(suite, cell), cell.folder(out)
    values = resolve_run([("row", keys)])
    plan = plan_run(values)
    objective = plan.build()
    folder.mkdir(parents=True, exist_ok=True)
    run = plan.open(folder, objective, resume=(folder / "checkpoint" / "state.json").is_file())
    result = search(run, plan.strategy, plan.run, baseline="none")
    trained = result.columns[TRAINED]
    assert trained is not None
    weights = sum(w.numel() for group in objective.parameters() for w in group["params"])
    done = {
        "selection": result.selected.score,
        "validation": trained.score,
        "tasks": dict(trained.task_scores),
        "weights": weights,
    }
    write_text(folder / "row.json", json.dumps(done, indent=1) + "\n")
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)


def best_factor(out: Path, row: str) -> float | None:
    """Return the factor with the best selection score; None while one is missing."""
    trials = {f: Cell(row, f, TRIAL_SEED).result(out) for f in FACTORS}
    scores = {f: trial["selection"] for f, trial in trials.items() if trial is not None}
    return max(scores, key=lambda f: scores[f]) if len(scores) == len(FACTORS) else None


def cells(suite: Mapping[str, Any], out: Path, only: list[str]) -> Iterator[Cell]:
    """Yield what is due: rows at their defaults where the suite asks for them, trials, the rest."""
    rows = [row for row in suite["rows"] if row in (only or suite["rows"])]
    defaults = [row for row in rows if row in suite.get("defaults", [])]
    if suite.get("defaults_first"):
        yield from (Cell(row, 1.0, seed) for seed in suite["seeds"] for row in defaults)
    for row in rows:
        yield from (Cell(row, factor, TRIAL_SEED) for factor in FACTORS)
    chosen = {row: best_factor(out, row) for row in rows}
    for seed in suite["seeds"]:
        yield from (Cell(row, factor, seed) for row, factor in chosen.items() if factor)
    yield from (Cell(row, 1.0, seed) for seed in suite["seeds"] for row in defaults)


def work(suite: Mapping[str, Any], out: Path, only: list[str]) -> None:
    """Carry out what is due and not taken by another process, until nothing is due."""
    while due := [cell for cell in cells(suite, out, only) if cell.result(out) is None]:
        for cell in due:
            folder = cell.folder(out)
            folder.mkdir(parents=True, exist_ok=True)
            if (lock := try_lock(folder / LOCK)) is None:
                continue
            with lock:
                if cell.result(out) is None:
                    carry_out(suite, cell, out)
                    print(f"finished: {cell}", flush=True)
            break
        else:  # all of them are taken; more may be due once the others have finished
            time.sleep(2)


def interval(differences: list[float]) -> str:
    """Return mean and 95 % interval of Student's t of paired differences."""
    mean = statistics.mean(differences)
    if len(differences) < 2:
        return f"{mean:+.3f}"
    half = stats.t.ppf(0.975, len(differences) - 1) * stats.sem(differences)
    return f"{mean:+.3f} ± {half:.3f}"


def table(suite: Mapping[str, Any], out: Path) -> None:
    """Print the table as Markdown, and write every finished run as CSV."""
    print("| | learns at | by seed | mean | minus LoRA | minus LoRA at equal weights | weights |")
    print("|---|---|---|---|---|---|---|")
    against = {name: scores(suite, out, name) for name in suite["against"]}
    lines = []
    for row in suite["rows"]:
        factor, found = best_factor(out, row), scores(suite, out, row)
        if factor is None or not found:
            continue
        shown = " ".join(f"{value:.3f}" for value in found.values())
        paired = [
            interval([found[s] - other[s] for s in found if s in other]) if other else "-"
            for other in against.values()
        ]
        weights = (Cell(row, factor, next(iter(found))).result(out) or {"weights": 0})["weights"]
        mean = statistics.mean(found.values())
        print(
            f"| {row} | x {factor:g} | {shown} | {mean:.3f} | {' | '.join(paired)} | {weights:,} |"
        )
    for file in sorted(out.glob("*/x*/seed*/row.json")):
        run = json.loads(file.read_text(encoding="utf-8"))
        names = {"row": file.parts[-4], "factor": file.parts[-3][1:], "seed": file.parts[-2][4:]}
        lines.append(names | run.pop("tasks") | run)
    if lines:
        with (out / "rows.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, lines[0], extrasaction="raise")
            writer.writeheader()
            writer.writerows(lines)


def scores(
    suite: Mapping[str, Any], out: Path, row: str, factor: float | None = None
) -> dict[int, float]:
    """Return the validation score by seed, at the chosen factor if none is given."""
    factor = factor or best_factor(out, row)
    if factor is None:
        return {}
    runs = {seed: Cell(row, factor, seed).result(out) for seed in suite["seeds"]}
    return {seed: run["validation"] for seed, run in runs.items() if run is not None}


def main() -> None:
    """Carry the rows of a file out, or print the table of what is finished."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("suite", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", nargs="*", default=[], help="these alone")
    parser.add_argument("--table", action="store_true", help="print what is finished")
    args = parser.parse_args()
    suite = yaml.safe_load(os.path.expandvars(args.suite.read_text(encoding="utf-8")))
    if args.table:
        table(suite, args.out)
    else:
        work(suite, args.out, args.rows)


if __name__ == "__main__":
    main()
