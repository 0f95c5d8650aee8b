"""A few steps of every method, as one process or as one of several: `python -m` it with a folder.

python -m tests.peml.methods.in_ranks BENCH OUT NAME...
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from peml.methods.method import METHODS
from peml.objective.config import LanguageModelConfig
from prefixnas.base.tensors import write_tensors
from prefixnas.run.ranks import end_now, join, leave
from tests.peml.methods.test_contract import make

STEPS = 3
RATE = 0.02


def steps(bench: Path, name: str) -> dict[str, Tensor]:
    """Return the losses of a method's first steps, and its weights after them."""
    options = {**vars(make(name)), "method": name}
    config = LanguageModelConfig.of(name)(
        **options,
        model=str(bench / ("bert" if name == "unipelt" else "llama")),
        tasks=[str(bench / "mood"), str(bench / "order")],
        gamma=0.08,  # one task's batches have one example: a share is empty
        dtype="float32",
    )
    objective = config.build(2 * STEPS, 0)
    objective.reset(None, 0)
    torch.manual_seed(0)
    optimizer = torch.optim.SGD([{**group, "lr": RATE} for group in objective.parameters()])
    losses: list[list[float]] = []
    for step in range(STEPS):
        optimizer.zero_grad()
        losses.append(list(objective.backward("train").values()))
        optimizer.step()
        objective.stepped(step)
    found = {f"{name}/losses": torch.tensor(losses)}
    for place, weight in enumerate(objective.method.parameters()):
        found[f"{name}/{place}"] = weight.detach().clone().contiguous()
    return found


def splitting() -> list[str]:
    """Return the methods that take part in several processes, and train something."""
    return [name for name in METHODS.names() if name not in ("frozen", "loramoe")]


def main(argv: Sequence[str]) -> None:
    """Write what `steps` returns for each method, from rank 0."""
    bench, out, *names = argv
    ranks = join()
    found: dict[str, Tensor] = {}
    for name in names:
        found |= steps(Path(bench), name)
    if ranks.first:
        write_tensors(Path(out), found)
    leave()


if __name__ == "__main__":
    main(sys.argv[1:])
    end_now()  # as runs end: a thread of gloo that is left aborts the process
