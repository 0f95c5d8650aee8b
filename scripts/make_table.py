"""Make the tabular benchmark: train every child of the space `tabular` with three seeds.

    python scripts/make_table.py children FOLDER --shard 0/2 &
    python scripts/make_table.py children FOLDER --shard 1/2
    python scripts/make_table.py supernet FOLDER --seed 0
    python scripts/make_table.py merge FOLDER search_spaces/tabular.json

`children` and `supernet` append what they finish to files in FOLDER and never repeat it; any number
of processes share one folder. `merge` writes the table that the package ships.

The recipe is one in which the encoder matters: the base model is frozen (LoRA is there, with a
learning rate of nearly zero), so that the prefix alone learns, and training is short, so that what
counts is how fast an encoder learns. The score is the negative loss on held-out examples: accuracy
hardly moves in so few steps.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from peml.answers.choices import choice_scores
from peml.batches.collate import Collator
from peml.objective.config import LanguageModelConfig
from peml.objective.objective import JointObjective
from peml.tasks.examples import Example
from peml.tasks.task import Task
from prefixnas.network.modes import evaluation_mode
from prefixnas.network.relaxations import Relaxation, SinglePath, Softmax
from prefixnas.network.supernet import Supernet, build_child
from prefixnas.run.evaluation import Split
from prefixnas.run.recipe import Recipe
from prefixnas.run.run import Budget, Run
from prefixnas.run.training import WeightOptimizer
from prefixnas.space.loading import load_space

SPACE = load_space("tabular")
SEEDS = (0, 1, 2)
STEPS = (20, 40, 60)
"""A child is scored after each of these steps; the last one ends its training."""
SPLITS: tuple[Split, ...] = ("selection", "validation")
SUPERNET_STEPS = 240
SUPERNETS: dict[str, type[Relaxation]] = {"mixture": Softmax, "one-shot": SinglePath}
CONFIG = LanguageModelConfig(
    model="embedded:llama",
    lora_rank=1,
    lora_dropout=0.0,
    learning_rate=1e-9,
    prefix_learning_rate=1e-3,
    prefix_length=8,
    batch_size=4,
    eval_limit=100,
)
RECIPE = Recipe()
BATCH = 50


def score(objective: JointObjective, split: Split) -> dict[str, float]:
    """Score every task's examples of a split; return means over the tasks.

    `loss` is the answers' cross-entropy, which training minimises; `probability` is the right
    answer's among the prompt's answers, geometric mean; `accuracy` is what a run reports.
    """
    totals = {"loss": 0.0, "probability": 0.0, "accuracy": 0.0}
    with objective.prefix.read(objective.prefix.evaluated()), evaluation_mode(objective.lm.model):
        for task in objective.tasks:
            examples = task.splits[split]
            rows = torch.tensor(_rows(objective.collator, task, examples), dtype=torch.float64)
            labels = torch.tensor([int(example.label) for example in examples])
            right = rows.gather(1, labels[:, None])[:, 0]
            among = right - rows.logsumexp(1)
            totals["loss"] -= right.mean().item()
            totals["probability"] += among.mean().exp().item()
            totals["accuracy"] += (rows.argmax(1) == labels).double().mean().item()
    return {name: round(total / len(objective.tasks), 6) for name, total in totals.items()}


def _rows(collator: Collator, task: Task, examples: Sequence[Example]) -> list[list[float]]:
    """Return the log-probability of each choice of each example, long prompts apart from short."""
    lengths = [len(collator.encode(task, example).prompt) for example in examples]
    order = sorted(range(len(examples)), key=lengths.__getitem__)
    rows: dict[int, list[float]] = {}
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        scores = choice_scores(collator, task, [examples[index] for index in batch])
        rows.update(zip(batch, scores, strict=True))
    return [rows[index] for index in range(len(examples))]


def train(
    objective: JointObjective, seed: int, steps: Sequence[int], make: Callable[[], nn.Module]
) -> Iterator[int]:
    """Train a fresh module in a fresh objective; yield each of `steps` when it is reached."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), SPACE, objective, Budget(0, steps[-1]), seed)
        run.reset(make())
        optimizer = WeightOptimizer(run, RECIPE, steps[-1])
        for step in range(steps[-1]):
            optimizer.gradients(step, "train", "train")
            optimizer.step(step)
            if step + 1 in steps:
                yield step + 1


def children(folder: Path, shard: int, shards: int) -> None:
    """Train this shard's children that no file of the folder holds yet."""
    architectures = list(SPACE.enumerate())
    jobs = [(seed, index) for seed in SEEDS for index in range(len(architectures))]
    done = {(row["seed"], row["architecture"]) for row in read(folder, "children")}
    objective = CONFIG.build(STEPS[-1], 0)
    for number, (seed, index) in enumerate(jobs):
        if number % shards != shard or (seed, index) in done:
            continue
        architecture, began, scores = architectures[index], time.perf_counter(), {}
        for step in train(
            objective, seed, STEPS, partial(build_child, SPACE, architecture, objective.width)
        ):
            scores[step] = {split: score(objective, split) for split in SPLITS}
        row = {"architecture": index, "seed": seed, "steps": scores}
        append(folder / f"children-{shard}-{shards}.jsonl", row)
        print(f"{number + 1}/{len(jobs)} {time.perf_counter() - began:.0f} s {row}", flush=True)


def supernet(folder: Path, training: str, seed: int) -> None:
    """Train a supernet with equal alphas; score every child cut out of it, weights inherited."""
    done = {(row["training"], row["seed"]) for row in read(folder, "supernet")}
    if (training, seed) in done:
        return
    objective = CONFIG.build(SUPERNET_STEPS, 0)
    nets: list[Supernet] = []

    def make() -> nn.Module:
        nets.append(Supernet(SPACE, objective.width, SUPERNETS[training]()))
        for alpha in nets[0].alphas:
            nn.init.zeros_(alpha)
        return nets[0]

    scores: dict[int, list[dict[str, float]]] = {}
    for step in train(objective, seed, (STEPS[-1], SUPERNET_STEPS), make):
        scores[step] = []
        for architecture in SPACE.enumerate():
            objective.replace(nets[0].child(architecture))
            scores[step].append(score(objective, "selection"))
        objective.replace(nets[0])
    row = {"training": training, "seed": seed, "steps": scores}
    append(folder / f"supernet-{training}-{seed}.jsonl", row)


def merge(folder: Path, out: Path) -> None:
    """Write the table: what it was made with, a row per architecture and seed, supernet scores."""
    architectures = list(SPACE.enumerate())
    rows = sorted(read(folder, "children"), key=lambda row: (row["architecture"], row["seed"]))
    if len(rows) != len(architectures) * len(SEEDS):
        raise SystemExit(f"{len(rows)} of {len(architectures) * len(SEEDS)} trainings are there")
    about = {
        "space": SPACE.name,
        "date": date.today().isoformat(),
        "versions": {name: version(name) for name in ("prefixnas", "torch", "transformers")},
        "objective": asdict(CONFIG),
        "recipe": asdict(RECIPE),
        "supernet": "equal alphas, not learned; children scored on selection, weights inherited",
        "score": "negative loss: log-probability of the right answer, mean over examples and tasks",
    }
    parts = {
        "architectures": [architecture.choices for architecture in architectures],
        "children": rows,
        "supernets": sorted(
            read(folder, "supernet"), key=lambda row: (row["training"], row["seed"])
        ),
    }
    blocks = [f'"about": {json.dumps(about, indent=1)}']
    for name, items in parts.items():
        lines = ",\n".join(json.dumps(item) for item in items)
        blocks.append(f'"{name}": [\n{lines}\n]')
    out.write_text("{\n" + ",\n".join(blocks) + "\n}\n", encoding="utf-8")


def read(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for path in sorted(folder.glob(f"{kind}-*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]


def append(path: Path, row: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def main(argv: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("children", help="train this shard's children")
    one.add_argument("--shard", default="0/1", help="i/n: every n-th training from the i-th")
    two = commands.add_parser("supernet", help="train a supernet, score all children cut from it")
    two.add_argument("--training", choices=SUPERNETS, default="mixture")
    two.add_argument("--seed", type=int, default=0)
    three = commands.add_parser("merge", help="write the table")
    for command in (one, two, three):
        command.add_argument("folder", type=Path)
    three.add_argument("out", type=Path)
    arguments = parser.parse_args(None if argv is None else list(argv))
    torch.set_num_threads(1)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if arguments.command == "children":
        shard, shards = map(int, arguments.shard.split("/"))
        children(arguments.folder, shard, shards)
    elif arguments.command == "supernet":
        supernet(arguments.folder, arguments.training, arguments.seed)
    else:
        merge(arguments.folder, arguments.out)


if __name__ == "__main__":
    main()
