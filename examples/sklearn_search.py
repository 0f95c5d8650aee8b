"""Search a small network for handwritten digits, with operations of our own.

    python examples/sklearn_search.py --out runs/digits
    prefixnas search --plugin examples/sklearn_search.py --objective digits \
        --space examples/digits.yaml --strategy two-stage
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from prefixnas import (
    Budget,
    Objective,
    ObjectiveConfig,
    Recipe,
    Run,
    load_space,
    option,
    register_objective,
    register_op,
    search,
)


@register_op("cosine")
class Cosine(nn.Module):
    """Cosines of learned frequencies and phases: `[..., width]` to `[..., width]`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.frequency = nn.Parameter(torch.ones(width))
        self.phase = nn.Parameter(torch.zeros(width))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return `cos(frequency * hidden + phase)`."""
        return torch.cos(self.frequency * hidden + self.phase)


@register_op("gated")
class Gated(nn.Module):
    """A linear map behind a gate: `[..., width]` to `[..., width]`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.both = nn.Linear(width, 2 * width)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return one half of the map times the sigmoid of the other."""
        return nn.functional.glu(self.both(hidden))


@register_objective("digits")
@dataclass(frozen=True)
class Digits(ObjectiveConfig):
    """Handwritten digits of 8 x 8 pixels, from scikit-learn."""

    digits_batch: int = option(32, "rows of a training step", at_least=1)

    def build(self, total_steps: int, seed: int) -> Objective:
        """Split the data and hand them to an objective."""
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        from prefixnas import SupervisedObjective

        inputs, targets = (torch.tensor(array) for array in load_digits(return_X_y=True))
        inputs = inputs.float() / 16
        train, held_out = train_test_split(range(len(inputs)), test_size=0.4, random_state=0)
        selection, validation = train_test_split(held_out, test_size=0.5, random_state=0)
        rows = {"train": train, "selection": selection, "validation": validation}
        data = {split: (inputs[index], targets[index]) for split, index in rows.items()}
        return SupervisedObjective(data, 10, name="digits", batch_size=self.digits_batch)


def main() -> None:
    """Search with three strategies at one budget, and print what they found."""
    from prefixnas.strategies import Darts, Evolution, TwoStage

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/digits"))
    parser.add_argument("--steps", type=int, default=400)
    arguments = parser.parse_args()
    space = load_space(str(Path(__file__).with_name("digits.yaml")))
    budget = Budget(arguments.steps // 2, arguments.steps - arguments.steps // 2)
    for strategy in (Darts(), Evolution(trials=4, population=2, sample=2), TwoStage(shortlist=3)):
        name = type(strategy).__name__
        objective = Digits().build(budget.total, seed=0)
        run = Run(arguments.out / name, space, objective, budget, seed=0)
        result = search(run, strategy, Recipe())
        print(f"{name}: {result.score:.3f} with {', '.join(result.architecture.values())}")


if __name__ == "__main__":
    main()
