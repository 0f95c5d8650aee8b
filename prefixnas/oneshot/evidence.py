"""Whether the alphas carry information: a test of the data's gradients against random signs.

If the loss pulls a decision in no direction, each step's gradient is as likely to come with the
opposite sign. Then the sum over the steps is no longer than the same sum with random signs.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from prefixnas.network.simplex import tangent
from prefixnas.network.supernet import Supernet
from prefixnas.run import events
from prefixnas.run.run import Run


class Evidence:
    """A sign-flip test of each decision on the way of a search, family-wise over all of them.

    With `S` the sum of a decision's gradients over the steps, its statistic is `|S|^2` over the sum
    of their squared norms. The same is kept for streams of random signs, one sign a step for all
    decisions together, so that what they have in common counts. A decision's p is the share of
    streams whose largest statistic over all decisions reaches its own (Westfall and Young 1993).

    Args:
        net: The supernet.
        seed: Of the signs; the random state of the run is not touched.
        streams: Of signs; the smallest p is `1 / (streams + 1)`.
    """

    def __init__(self, net: Supernet, seed: int, streams: int = 199) -> None:
        self.net, self.seed, self.streams = net, seed, streams
        self.steps = 0
        self._options = [len(decision.options) for decision in net.decisions]
        double = torch.float64
        self._sums = torch.zeros(streams + 1, sum(self._options), dtype=double)  # 0: true signs
        self._squares = torch.zeros(sum(self._options), dtype=double)

    def take(self, gradients: Sequence[Tensor]) -> None:
        """Take the data's gradient of a step, `[options]` per decision."""
        along = [tangent(g, self.net.alive(index)) for index, g in enumerate(gradients)]
        gradient = torch.cat(along).to(self._sums)
        self._sums.addr_(self._signs(), gradient)
        self._squares += gradient.square()
        self.steps += 1

    def found(self) -> events.Evidence:
        """Return what the test says of the steps so far."""
        parts = torch.split(self._sums.square(), self._options, dim=-1)
        lengths = [part.sum(-1) for part in parts]
        noise = [part.sum() for part in torch.split(self._squares, self._options)]
        statistics = torch.stack(
            [torch.where(q > 0, length / q, 0.0) for length, q in zip(lengths, noise, strict=True)]
        )
        largest = statistics[:, 1:].amax(0)
        reached = (largest >= statistics[:, :1]).sum(1).tolist()
        shares = [(1 + count) / (1 + self.streams) for count in reached]
        names = [decision.name for decision in self.net.decisions]
        return events.Evidence(self.steps, min(shares), dict(zip(names, shares, strict=True)))

    def tell(self, run: Run) -> None:
        """Emit what was found, once in a run; with a warning where it is no more than chance."""
        run.once("told of the evidence", partial(_tell, run, self))

    def _signs(self) -> Tensor:
        """Return the signs of this step, `[1 + streams]`."""
        drawn = random.Random(f"signs {self.seed} {self.steps}")
        flips = drawn.choices((-1.0, 1.0), k=self.streams)
        return torch.tensor([1.0, *flips], dtype=torch.float64)

    def state_dict(self) -> dict[str, Any]:
        """Return the sums and the number of steps, on which the next signs depend."""
        return {"steps": self.steps, "sums": self._sums, "squares": self._squares}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore them."""
        self.steps = state["steps"]
        self._sums.copy_(state["sums"])
        self._squares.copy_(state["squares"])


def _tell(run: Run, evidence: Evidence) -> None:
    found = evidence.found()
    run.emit(found)
    if doubt := found.doubt():
        run.emit(events.Warning(doubt))
