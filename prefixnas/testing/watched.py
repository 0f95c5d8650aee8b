"""A wrapper around an objective that watches what a strategy does with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from prefixnas.network.relaxations import SinglePath
from prefixnas.network.supernet import Supernet
from prefixnas.oneshot.rewind import gradient_of
from prefixnas.run.evaluation import Evaluation, Split
from prefixnas.run.objective import Objective
from prefixnas.testing.promise import BrokenPromise


@dataclass
class WatchedNet:
    """A supernet that was attached, its alphas as they came, and the gradients they received.

    Attributes:
        net: The supernet.
        start: Its alphas when it was attached.
        gradients: Per alpha, the sum of the absolute gradients of the joint loss.
        batches: Batches that went through it.
    """

    net: Supernet
    start: list[Tensor]
    gradients: list[Tensor]
    batches: int = 0


class Watched:
    """Stands in for an objective: passes everything on and takes notes.

    Args:
        inner: The objective.
        lie: Turn the sign of all scores on the split "validation".

    Attributes:
        module: The module that is attached.
        batches: Batches drawn so far.
        nets: Every supernet that was attached, where alphas take part.
    """

    def __init__(self, inner: Objective, lie: bool = False) -> None:
        self._inner = inner
        self._lie = lie
        self.module: nn.Module | None = None
        self.batches = 0
        self.nets: list[WatchedNet] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def proxy(self, settings: Mapping[str, str]) -> Watched:
        """Watch the proxy, too: its supernets are noted here, its batches are its own."""
        proxy = Watched(self._inner.proxy(settings), self._lie)
        proxy.nets = self.nets
        return proxy

    def reset(self, module: nn.Module | None, seed: int) -> None:
        """Note the module."""
        self._inner.reset(module, seed)
        self._watch(module)

    def replace(self, module: nn.Module) -> None:
        """Note the module."""
        self._inner.replace(module)
        self._watch(module)

    def backward(self, split: Split = "train") -> dict[str, float]:
        """Count the batch and the gradients that the alphas receive from it."""
        if split in ("validation", "test"):
            raise BrokenPromise("selection", f"a batch of the {split} split was trained on")
        watched = self._current()
        before = [gradient_of(alpha) for net in watched for alpha in net.net.alphas]
        losses = self._inner.backward(split)
        self.batches += 1
        received = iter(before)
        for net in watched:
            net.batches += 1
            for alpha, total in zip(net.net.alphas, net.gradients, strict=True):
                total += (gradient_of(alpha) - next(received)).abs()
        return losses

    def evaluate(self, split: Split) -> Evaluation:
        """Turn the scores' signs if that is asked for."""
        result = self._inner.evaluate(split)
        if self._lie and split == "validation":
            return Evaluation(
                {t: {k: -v for k, v in scores.items()} for t, scores in result.scores.items()},
                {task: -score for task, score in result.task_scores.items()},
            )
        return result

    def _watch(self, module: nn.Module | None) -> None:
        self.module = module
        known = [watched.net for watched in self.nets]
        for part in module.modules() if module is not None else ():
            if not isinstance(part, Supernet) or isinstance(part.relaxation, SinglePath):
                continue
            if part not in known:
                alphas = [alpha.detach().clone() for alpha in part.alphas]
                self.nets.append(WatchedNet(part, alphas, [0 * alpha for alpha in alphas]))

    def _current(self) -> list[WatchedNet]:
        inside = set(self.module.modules()) if self.module is not None else set()
        return [watched for watched in self.nets if watched.net in inside]
