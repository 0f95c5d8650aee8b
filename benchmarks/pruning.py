"""What pruning saves: the same study with and without it, on an embedded task.

    python benchmarks/pruning.py --out runs/pruning

Every study has one worker, so that its trials follow from its seed alone. Prints a Markdown table:
training steps of all trials, and the best score on the selection split (which chooses) with the
validation score of that trial (which chooses nothing). Called again, it goes on. The pruner was
chosen by replaying studies of the seeds 0, 1 and 2, so the seeds 3, 4 and 5 are reported.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from prefixnas.experiments.experiment import load_experiment
from prefixnas.experiments.rows import COMPLETE, FAIL, PRUNED, STEPS, VALIDATION
from prefixnas.experiments.study import Study

ARMS: Mapping[str, Any] = {
    "without": "none",
    "with": {"percentile": {"percentile": 33.0, "n_startup_trials": 2, "n_warmup_steps": 8}},
}
"""From the eighth of thirty epochs on, a trial goes on that is among the best third. Before that
the task's score is that of guessing, whatever the hyper-parameters."""


def experiment(arm: str, seed: int, trials: int) -> dict[str, Any]:
    return {
        "name": f"{arm}-{seed}",
        "base": {
            "tasks": ["embedded:sentiment"],
            "steps": 300,
            "eval_every": 10,
            "eval_limit": 150,
            "seed": seed,
        },
        "hyperparameters": {
            "learning_rate": {"loguniform": [1e-4, 1e-1]},
            "prefix_learning_rate": {"loguniform": [1e-5, 3e-2]},
            "prefix_length": {"int": [5, 50]},
        },
        "trials": trials,
        "sampler": {"tpe": {"n_startup_trials": 5}},
        "pruner": ARMS[arm],
        "seed": seed,
    }


def run(arm: str, seed: int, trials: int, out: Path) -> None:
    file, folder = out / f"{arm}-{seed}.yaml", out / f"{arm}-{seed}"
    file.write_text(yaml.safe_dump(experiment(arm, seed, trials), sort_keys=False))
    command = [sys.executable, "-m", "prefixnas", "tune", str(file), "--out", str(folder)]
    if Study.begun(load_experiment(file), folder):
        command.append("--resume")
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    with (out / f"{arm}-{seed}.log").open("ab") as log:
        subprocess.run(command, stdout=log, stderr=log, env=environment, check=True)


def line(arm: str, seed: int, out: Path) -> tuple[int, float, str]:
    study = Study.open(load_experiment(out / f"{arm}-{seed}.yaml"), out / f"{arm}-{seed}")
    rows, best = study.rows(), study.best()
    assert best is not None and best.score is not None
    steps = sum(int(row.notes.get(STEPS, 0)) for row in rows)
    states = [row.state for row in rows]
    counts = "/".join(str(states.count(state)) for state in (COMPLETE, PRUNED, FAIL))
    shown = f"{steps} | {counts} | {best.score:.3f} | {best.notes[VALIDATION]:.3f}"
    return steps, best.score, f"| {seed} | {arm} | {shown} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 4, 5])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=2, help="studies side by side")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    cells = [(arm, seed) for arm in ARMS for seed in args.seeds]
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(lambda cell: run(cell[0], cell[1], args.trials, args.out), cells))
    print("| seed | pruning | steps | complete/pruned/failed | best (selection) | its validation |")
    print("|---|---|---|---|---|---|")
    for seed in args.seeds:
        found = {arm: line(arm, seed, args.out) for arm in ARMS}
        for _, _, text in found.values():
            print(text)
    shares = [
        line("with", seed, args.out)[0] / line("without", seed, args.out)[0] for seed in args.seeds
    ]
    print(f"\nsteps with pruning, of those without: {', '.join(f'{s:.0%}' for s in shares)}")


if __name__ == "__main__":
    main()
