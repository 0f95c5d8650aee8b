"""What the entropy term decides where the data say little, by its scale.

Six decisions of four options without a model: the gradient in the first three decisions' weights
is noise and a pull towards their first option, in the other three it is noise alone. Reported are
the share of right choices among the first three, and how sure the search is of the other three
(the mean of their largest probabilities; 0.25 is equal).

    python benchmarks/entropy_scale.py --steps 120 --seeds 12
"""

from __future__ import annotations

import argparse
import statistics

import torch
from rich.console import Console
from rich.table import Table

from prefixnas.network.supernet import Supernet
from prefixnas.oneshot.alphas import AlphaOptimizer
from prefixnas.oneshot.entropy import ENTROPY_SCALES
from prefixnas.oneshot.update import UPDATES
from prefixnas.space.nodes import Choice, Seq, Stack
from prefixnas.space.space import SearchSpace

TERMS = {
    "no entropy": ("gradient", 0.0),
    "gradient, 0.5": ("gradient", 0.5),
    "gradient, 1": ("gradient", 1.0),
    "gradient, 2": ("gradient", 2.0),
    "loss, 0.05": ("loss", 0.05),
}
CELL = Seq("linear", Choice("f", ["relu", "tanh", "gelu", "leaky_relu"]))
INFORMED = 3


def search(seed: int, steps: int, ratio: float, noise: float, term: str) -> tuple[float, float]:
    """Move alphas by made-up gradients.

    Returns:
        The share of right choices, and the mean largest probability where there is no right one.
    """
    torch.manual_seed(seed)
    net = Supernet(SearchSpace("noise", Stack(2 * INFORMED, CELL)), width=4)
    scale, weight = TERMS[term]
    optimizer = UPDATES.get("logits")().optimizer(net, 0.03)
    alphas = AlphaOptimizer(net, optimizer, ENTROPY_SCALES[scale](net))
    for step in range(steps):
        alphas.zero_grad()
        for place, alpha in enumerate(net.alphas):
            slope = torch.randn(4)
            slope[0] -= ratio if place < INFORMED else 0.0
            (noise * slope @ torch.softmax(alpha, 0)).backward()  # type: ignore[no-untyped-call]
        alphas.step(weight * step / steps)
    found = [*net.probabilities().values()]
    right = [float(p.argmax() == 0) for p in found[:INFORMED]]
    return statistics.mean(right), statistics.mean(float(p.max()) for p in found[INFORMED:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--noise", type=float, default=0.01, help="an option's, in a step")
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.0, 0.1, 0.3])
    arguments = parser.parse_args()
    table = Table("signal / noise", *TERMS)
    for ratio in arguments.ratios:
        cells = []
        for term in TERMS:
            seeds = range(arguments.seeds)
            runs = [search(seed, arguments.steps, ratio, arguments.noise, term) for seed in seeds]
            right, sure = (statistics.mean(column) for column in zip(*runs, strict=True))
            cells.append(f"{right:.2f}, {sure:.2f}")
        table.add_row(f"{ratio:g}", *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
