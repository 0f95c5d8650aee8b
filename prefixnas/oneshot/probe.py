"""Probes of a differentiable search: measurements on batches of their own that disturb nothing.

A probe remembers the place in the data, the random state, weights and alphas, passes further
batches, and puts everything back, so that a search finds the same with probes and without. What
is compared is always computed on the same batch with the same random draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from prefixnas.network.mixture import Mixture
from prefixnas.network.simplex import Simplex, tangent
from prefixnas.network.supernet import Supernet
from prefixnas.oneshot.rewind import Bookmark, gradient_of, put
from prefixnas.run import events
from prefixnas.run.evaluation import Split
from prefixnas.run.loop import refuse_nan
from prefixnas.run.run import Run

POSITIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Where the way from the mixture (0) to the argmax child (1) is measured."""


@dataclass(frozen=True)
class _Passed:
    """Loss and gradients of one batch."""

    loss: float
    weights: list[Tensor]
    alphas: list[Tensor]


class Probe:
    """Measures gradients around steps of a search, and the way to the argmax child at its end.

    Args:
        run: The run, with the supernet attached.
        net: The supernet.
        split: The split whose loss moves the alphas.
        every: Steps between two probes; 0: none, and nothing at the end.
        batches: Batches of each probe.
    """

    def __init__(self, run: Run, net: Supernet, split: Split, every: int, batches: int) -> None:
        self.run, self.net, self.split = run, net, split
        self.every, self.batches = every, batches

    @contextmanager
    def around(self, step: int) -> Iterator[None]:
        """Emit an `events.Probe` of the step inside, which moves weights and alphas."""
        if not self.every or step % self.every:
            yield
            return
        weights, alphas = self._weights(), [*self.net.alphas]
        before = _copies(weights), _copies(alphas)
        yield
        after = _copies(weights), _copies(alphas)
        change, norm, total, mean_change, mean = [], [], [], _zeros(alphas), _zeros(weights, alphas)
        squares = 0.0
        with self._undisturbed(weights, alphas):
            for _ in range(self.batches):
                place = Bookmark(self.run.objective)
                first = self._pass(place, weights, before[0], before[1])
                here = [*first.weights, *first.alphas]
                _add(mean, here, 1 / self.batches)
                squares += _norm(here) ** 2 / self.batches
                norm.append(_norm(first.alphas))
                moved = self._pass(place, weights, after[0], before[1])
                difference = _minus(moved.alphas, first.alphas)
                _add(mean_change, difference, 1 / self.batches)
                change.append(_norm(difference))
                both = self._pass(place, weights, after[0], after[1])
                total.append(_norm(_minus([*both.weights, *both.alphas], here)))
        noise = (squares - _norm(mean) ** 2) / (self.batches - 1) if self.batches > 1 else None
        self.run.emit(
            events.Probe(
                step=step,
                passes=3 * self.batches,
                weight_move=_norm(_minus(after[0], before[0])),
                alpha_move=_norm(_minus(after[1], before[1])),
                alpha_gradient_norm=norm,
                alpha_gradient_change=change,
                alpha_gradient_change_of_mean=_norm(mean_change),
                gradient_change=total,
                squared_norm=squares,
                squared_norm_of_mean=None if noise is None else _norm(mean) ** 2 - noise,
            )
        )

    def finish(self) -> None:
        """Emit an `events.Gap`: losses and gradients on the way to the argmax child.

        Gradients are those in the mixture's weights, along the simplex: without the part that
        would change their sum.
        """
        if not self.every:
            return
        alive = [self.net.alive(index) for index in range(len(self.net.alphas))]
        start = [p.clone() for p in self.net.probabilities().values()]
        end = [torch.nn.functional.one_hot(p.argmax(), len(p)).to(p.dtype) for p in start]
        way = _norm(_minus(end, start))
        losses: list[list[float]] = []
        norms: list[list[float]] = []
        changes: list[float] = []
        weights, alphas = self._weights(), [*self.net.alphas]
        with self._undisturbed(weights, alphas), mixed_by_alpha(self.net):
            kept = _copies(weights)
            for _ in range(self.batches):
                place = Bookmark(self.run.objective)
                passed = [
                    self._pass(place, weights, kept, _between(start, end, position))
                    for position in POSITIONS
                ]
                slopes = [
                    [tangent(g, left) for g, left in zip(point.alphas, alive, strict=True)]
                    for point in passed
                ]
                losses.append([point.loss for point in passed])
                norms.append([_norm(slope) for slope in slopes])
                steps = [_norm(_minus(b, a)) for a, b in pairwise(slopes)]
                changes.append(max(steps) * (len(POSITIONS) - 1) / way if way else 0.0)
        self.run.emit(
            events.Gap(
                passes=len(POSITIONS) * self.batches,
                positions=list(POSITIONS),
                losses=losses,
                gradient_norms=norms,
                smoothness=changes,
                epsilon={
                    decision.name: 1.0 - float(p.max())
                    for decision, p in zip(self.net.decisions, start, strict=True)
                },
                distance=way,
            )
        )

    def _weights(self) -> list[Tensor]:
        groups = self.run.objective.parameters()
        return [weight for group in groups for weight in group["params"]]

    def _pass(
        self, place: Bookmark, weights: list[Tensor], values: list[Tensor], alphas: list[Tensor]
    ) -> _Passed:
        """Pass the batch at `place` with these weights and alphas."""
        place.back()
        own = [*self.net.alphas]
        put([*weights, *own], [*values, *alphas])
        for parameter in (*weights, *own):
            parameter.grad = None
        losses = self.run.objective.backward(self.split)
        refuse_nan(losses, "probe", 0, self.run.folder)
        loss = sum(losses.values()) / len(losses)
        return _Passed(loss, [gradient_of(w) for w in weights], [gradient_of(a) for a in own])

    @contextmanager
    def _undisturbed(self, weights: list[Tensor], alphas: list[Tensor]) -> Iterator[None]:
        """Put the place in the data, the random state, weights and alphas back afterwards."""
        home, parameters = Bookmark(self.run.objective), [*weights, *alphas]
        values = _copies(parameters)
        try:
            yield
        finally:
            home.back()
            put(parameters, values)
            for parameter in parameters:
                parameter.grad = None


@contextmanager
def mixed_by_alpha(net: Supernet) -> Iterator[None]:
    """Let a supernet compute all candidates, weighted by alphas that are distributions.

    The alphas are set to the probabilities, and put back afterwards.
    """
    relaxation, alphas = net.relaxation, _copies([*net.alphas])
    mixtures = [module for module in net.root.modules() if isinstance(module, Mixture)]
    paths = [mixture.one_path for mixture in mixtures]
    put([*net.alphas], [*net.probabilities().values()])
    net.relaxation = Simplex()
    for mixture in mixtures:
        mixture.one_path = False
    try:
        yield
    finally:
        net.relaxation = relaxation
        put([*net.alphas], alphas)
        for mixture, path in zip(mixtures, paths, strict=True):
            mixture.one_path = path


def _between(start: list[Tensor], end: list[Tensor], position: float) -> list[Tensor]:
    return [torch.lerp(a, b, position) for a, b in zip(start, end, strict=True)]


def _copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in tensors]


def _zeros(*groups: Sequence[Tensor]) -> list[Tensor]:
    return [torch.zeros_like(tensor) for group in groups for tensor in group]


def _minus(first: Sequence[Tensor], second: Sequence[Tensor]) -> list[Tensor]:
    return [a - b for a, b in zip(first, second, strict=True)]


@torch.no_grad()
def _add(sums: Sequence[Tensor], terms: Sequence[Tensor], factor: float) -> None:
    for total, term in zip(sums, terms, strict=True):
        total += factor * term


def _norm(tensors: Sequence[Tensor]) -> float:
    return float(torch.nn.utils.get_total_norm([tensor.detach() for tensor in tensors]))
