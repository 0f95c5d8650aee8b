"""All strategies on the tabular benchmark: regret against evaluations, ranks of supernets.

Strategies that try architectures: mean regret over seeds after each evaluation. Others: one point,
whole runs with a search budget counted in children's trainings. Prints, and writes `regret.csv`,
`agreement.csv` and `regret.png`.

    python benchmarks/tabular.py --out benchmarks/out
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from rich.console import Console
from rich.table import Table as Grid

from prefixnas.base.errors import UserError
from prefixnas.base.options import make, resolve
from prefixnas.multitrial.strategy import TrialStrategy
from prefixnas.run.strategy import STRATEGIES, Strategy
from prefixnas.testing.tabular.regret import (
    Numbers,
    RankAgreement,
    rank_agreement,
    regrets,
    run_regrets,
    spread,
)
from prefixnas.testing.tabular.table import Table, shipped_table

Z95 = 1.96
TRAINED = "trained children"
RELAXATIONS = ("softmax", "gumbel", "ste")
Points = Mapping[str, Mapping[float, Numbers]]
"""Regrets of whole runs `[runs]`, by name and by budget in trainings of a child."""


def strategies(chosen: Sequence[str]) -> dict[str, Strategy]:
    """Build strategies by name, with their default options; darts with several relaxations."""
    made: dict[str, Strategy] = {}
    for name in chosen or [name for name in STRATEGIES.names() if name != "fixed"]:
        options = {"strategy": STRATEGIES.get(name)}
        for variant in RELAXATIONS if name == "darts" else [""]:
            layers = [("benchmark", {"relaxation": variant} if variant else {})]
            label = f"{name} {variant}".strip()
            made[label] = make(options["strategy"], resolve(options, layers))
    return made


def interval(values: Numbers) -> Numbers:
    """Return half the width of the mean's 95 % interval over the first axis."""
    half: Numbers = Z95 * values.std(0, ddof=1) / len(values) ** 0.5
    return half


def plot(curves: Mapping[str, Numbers], points: Points, floor: float, out: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for number, (name, values) in enumerate(curves.items()):
        at, mean, half = np.arange(1, values.shape[1] + 1), values.mean(0), interval(values)
        color = "black" if name == "random" else f"C{number}"
        axes.plot(at, mean, label=name, color=color, lw=2 if name == "random" else 1.5)
        axes.fill_between(at, mean - half, mean + half, color=color, alpha=0.15, lw=0)
    for number, (name, by_budget) in enumerate(points.items(), len(curves)):
        dodge = 1 + 0.06 * (number - len(curves) - (len(points) - 1) / 2)
        axes.errorbar(
            [dodge * budget for budget in by_budget],
            [values.mean() for values in by_budget.values()],
            [interval(values) for values in by_budget.values()],
            fmt="os^Dv"[number % 5],
            ms=4,
            lw=1,
            color=f"C{number}",
            label=name,
        )
    axes.axhline(floor, color="gray", ls=":", label="best of all by one training")
    axes.set_xscale("log")
    budgets = {budget for by_budget in points.values() for budget in by_budget}
    ticks = sorted(budgets | {1, 2, 5, 10, 20, 40})
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set(xlabel="evaluations (trainings of a child)", ylabel="mean regret (nats)")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(out, dpi=150)


def print_regrets(
    curves: Mapping[str, Numbers],
    points: Points,
    seconds: Mapping[str, float],
) -> None:
    marks = [
        mark for mark in (5, 10, 20, 40, 64) if mark <= min(v.shape[1] for v in curves.values())
    ]
    grid = Grid("strategy", *(f"{mark} evaluations" for mark in marks), "ms per search")
    for name, values in curves.items():
        mean, half = values.mean(0), interval(values)
        cells = (f"{mean[mark - 1]:.4f} ± {half[mark - 1]:.4f}" for mark in marks)
        grid.add_row(name, *cells, f"{1000 * seconds[name]:.0f}")
    Console().print(grid)
    grid = Grid("strategy", "trainings' worth of steps", "runs", "regret")
    for name, by_budget in points.items():
        for budget, values in by_budget.items():
            regret = f"{values.mean():.4f} ± {interval(values):.4f}"
            grid.add_row(name, f"{budget:g}", str(len(values)), regret)
    Console().print(grid)


def agreements(table: Table) -> list[tuple[str, int, int, RankAgreement]]:
    """Compare supernets, and trainings of one seed, with the table's means over seeds."""
    nets = [
        (f"supernet, {net.training}", net.seed, net.steps, rank_agreement(net.scores, table))
        for net in sorted(table.supernets, key=lambda net: (net.training, net.steps, net.seed))
    ]
    for steps in table.steps:
        for seed in table.seeds:
            scores = [table.score(one, "selection", seed, steps) for one in table.architectures]
            nets.append((TRAINED, seed, steps, rank_agreement(scores, table)))
    return nets


def print_agreements(found: Sequence[tuple[str, int, int, RankAgreement]]) -> None:
    grid = Grid("scores of", "seed", "steps", "Kendall's tau", "p", "regret of its best")
    for name, seed, steps, one in found:
        numbers = (f"{one.tau:+.2f}", f"{one.p:.1g}", f"{one.regret:.4f}")
        grid.add_row(name, str(seed), str(steps), *numbers)
    Console().print(grid)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--strategies", nargs="*", default=[], help="default: all but fixed")
    parser.add_argument("--evaluations", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--runs", type=int, default=12, help="seeds of strategies without trials")
    parser.add_argument(
        "--trainings",
        type=float,
        nargs="+",
        default=[0.25, 1, 4],
        help="their budgets, in trainings",
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    table = shipped_table()
    longest = table.steps[-1]
    scores = [table.score(one, "validation") for one in table.architectures]
    print(
        f"{len(scores)} architectures: best {max(scores):.4f}, mean {np.mean(scores):.4f}, worst "
        f"{min(scores):.4f}; regret of the average architecture {max(scores) - np.mean(scores):.4f}"
    )
    for split in ("selection", "validation"):
        deviation = spread(table, split)
        print(f"standard deviation, {split}: {deviation.architectures:.4f} over architectures, "
              f"{deviation.seeds:.4f} over seeds")  # fmt: skip
    found = agreements(table)
    last = [one.regret for name, _, steps, one in found if (name, steps) == (TRAINED, longest)]
    floor = float(np.mean(last))
    print(f"regret of the best of all by one training: {floor:.4f}")
    curves: dict[str, Numbers] = {}
    points: dict[str, dict[float, Numbers]] = {}
    seconds: dict[str, float] = {}
    for name, strategy in strategies(arguments.strategies).items():
        began = time.perf_counter()
        if isinstance(strategy, TrialStrategy):
            curves[name] = regrets(strategy, arguments.evaluations, range(arguments.seeds))
            seconds[name] = (time.perf_counter() - began) / arguments.seeds
        else:
            points[name] = {}
            for count in arguments.trainings:
                try:
                    found_by = run_regrets(strategy, round(count * longest), range(arguments.runs))
                except UserError as error:
                    print(f"{name}, {count:g} trainings: {error}")
                else:
                    points[name][count] = found_by
    print_regrets(curves, points, seconds)
    print_agreements(found)
    with (arguments.out / "regret.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["strategy", "seeds", "evaluations", "regret", "half_interval_95"])
        for name, values in curves.items():
            for number, (mean, half) in enumerate(
                zip(values.mean(0), interval(values), strict=True)
            ):
                rows.writerow([name, len(values), number + 1, f"{mean:.6f}", f"{half:.6f}"])
        for name, by_budget in points.items():
            for budget, values in by_budget.items():
                at = [name, len(values), budget]
                rows.writerow([*at, f"{values.mean():.6f}", f"{interval(values):.6f}"])
    with (arguments.out / "agreement.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["scores", "seed", "steps", "tau", "p", "regret"])
        for name, seed, steps, one in found:
            numbers = (f"{number:.6g}" for number in (one.tau, one.p, one.regret))
            rows.writerow([name, seed, steps, *numbers])
    plot(curves, points, floor, arguments.out / "regret.png")
    print(f"written: {arguments.out}/regret.csv, agreement.csv, regret.png")


if __name__ == "__main__":
    main()
