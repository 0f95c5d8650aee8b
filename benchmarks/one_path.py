"""What a search step costs over the 12 candidates of the space `paper`, each with its own weights.

Side by side in one process, in alternating order: (a) training one candidate per cell, (b) a
search step with one-path sampling, (c) a search step that mixes all candidates. First the prefix
encoder alone, forward, backward and both optimisers, then a whole step on a language model.

    python benchmarks/one_path.py
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from peml.objective.config import LanguageModelConfig
from peml.objective.objective import JointObjective
from prefixnas.network.relaxations import RELAXATIONS
from prefixnas.network.supernet import Supernet, build_child
from prefixnas.oneshot.alphas import AlphaOptimizer
from prefixnas.oneshot.level import Joint
from prefixnas.run.evaluation import Split
from prefixnas.run.objective import Objective
from prefixnas.run.recipe import Recipe
from prefixnas.run.run import Budget, Run
from prefixnas.run.training import WeightOptimizer
from prefixnas.space.loading import load_space
from prefixnas.testing import ToyObjective

STEPS = 100_000
SINGLE, ONE_PATH, ALL = "(a) one candidate", "(b) one-path, 12 candidates", "(c) all 12 mixed"

Step = Callable[[], None]


class EncoderAlone(ToyObjective):
    """A prefix embedding `[length, width]`, the searched cells, and a linear loss."""

    def __init__(self, width: int, length: int = 20) -> None:
        super().__init__(width)
        self.embedding = nn.Parameter(torch.randn(length, width))
        self.target = torch.randn(length, width)

    def parameters(self) -> list[dict[str, Any]]:
        """Return one group."""
        groups = super().parameters()
        return [{**groups[0], "params": [self.embedding, *groups[0]["params"]]}]

    def backward(self, split: Split = "train") -> dict[str, float]:
        """Add the gradient of a linear loss of the whole output."""
        assert self._module is not None
        loss = (self._module(self.embedding) * self.target).mean()
        loss.backward()
        return {"linear": loss.item()}


def step_of(objective: Objective, folder: Path, relaxation: str | None) -> Step:
    """Return a joint search step under `relaxation`, or a training step of one candidate."""
    space = load_space("paper")
    run = Run(folder, space, objective, Budget(STEPS, 0), 0)
    if relaxation is None:
        child = build_child(space, space.first(), objective.width)
        run.reset(child)
        weights = WeightOptimizer(run, Recipe(), STEPS)

        def train() -> None:
            weights.gradients(0, "train", "train")
            weights.step(0)

        return train
    net = Supernet(space, objective.width, RELAXATIONS.get(relaxation)())
    run.reset(net)
    weights = WeightOptimizer(run, Recipe(), STEPS)
    alphas = AlphaOptimizer(net, torch.optim.Adam(net.alphas.parameters(), 0.03))
    level = Joint(run, net, weights, alphas)

    def search() -> None:
        level.step(0, entropy_weight=1.0)

    return search


def measure(steps: Mapping[str, Step], rounds: int, warm: int = 3) -> dict[str, list[float]]:
    """Time every step once a round, forwards and backwards in turn; return the seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + warm):
        for name, step in list(steps.items())[:: 1 if turn % 2 else -1]:
            began = time.perf_counter()
            step()
            if turn >= warm:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", nargs="*", type=int, default=[256, 576, 768])
    parser.add_argument("--model", default="embedded:llama", help="a model, or none")
    parser.add_argument("--tasks", nargs="+", default=["embedded"])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    makers: dict[str, Callable[[], Objective]] = {
        f"encoder alone, width {width}": lambda width=width: EncoderAlone(width)  # type: ignore[misc]
        for width in arguments.widths
    }
    if arguments.model != "none":
        config = LanguageModelConfig(model=arguments.model, tasks=arguments.tasks)
        makers[f"whole step on {arguments.model}"] = lambda: JointObjective(config, STEPS, 0)
    table = Table("what", "variant", "ms, median", "min", "ratio to (a), median", "quartiles")
    for what, make in makers.items():
        with tempfile.TemporaryDirectory() as folder:
            seconds = measure(
                {
                    SINGLE: step_of(make(), Path(folder) / "single", None),
                    ONE_PATH: step_of(make(), Path(folder) / "one-path", "one-path"),
                    ALL: step_of(make(), Path(folder) / "all", "softmax"),
                },
                arguments.rounds,
            )
        for name, times in seconds.items():
            ratios = [one / other for one, other in zip(times, seconds[SINGLE], strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            table.add_row(
                what,
                name,
                f"{1e3 * statistics.median(times):.1f}",
                f"{1e3 * min(times):.1f}",
                f"{middle:.2f}",
                f"{low:.2f} - {high:.2f}",
            )
    Console(width=120).print(table)
    print(f"{arguments.rounds} rounds, {arguments.threads} threads, torch {torch.__version__}")


if __name__ == "__main__":
    main()
