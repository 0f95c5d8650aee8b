"""The contract of relaxations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from prefixnas.network.relaxations import Relaxation, Softmax
from prefixnas.network.supernet import Supernet
from prefixnas.run.objective import Objective
from prefixnas.space.nodes import Choice, Seq
from prefixnas.space.space import SearchSpace
from prefixnas.testing.promise import BrokenPromise, a_test_for_each, expect, promises_of
from prefixnas.testing.spaces import shipped_spaces
from prefixnas.testing.toy import ToyObjective

_PROGRESS = (0.0, 0.5, 1.0)


class RelaxationCheck:
    """The promises of a relaxation, one method each.

    Args:
        relaxation: The relaxation.
        spaces: Where gradients are measured.
        floor: Share of the softmax's mean gradient that every alpha must receive.
        draws: Draws that a sampling relaxation is averaged over.
        objective: Makes the objective whose loss is differentiated.
    """

    def __init__(
        self,
        relaxation: Relaxation,
        spaces: Sequence[SearchSpace],
        floor: float = 0.01,
        draws: int = 40,
        objective: Callable[[], Objective] = ToyObjective,
    ) -> None:
        self.relaxation, self.spaces, self.floor, self.draws = relaxation, spaces, floor, draws
        self.objective = objective

    def sum_to_one(self) -> None:
        """Weights are finite, not negative, and sum to one, for any number of options."""
        torch.manual_seed(0)
        for options in (1, 2, 3, 12):
            for scale in (1e-3, 1.0, 30.0):
                alpha = self.relaxation.nearest(scale * torch.randn(options))
                trained = [self.relaxation.weights(alpha, progress) for progress in _PROGRESS]
                for weights in (*trained, self.relaxation.expected(alpha)):
                    fine = (
                        weights.shape == alpha.shape
                        and bool(weights.isfinite().all())
                        and bool((weights > -1e-5).all())
                        and abs(weights.sum().item() - 1) < 1e-4
                    )
                    text = f"alpha {alpha.tolist()} gives the weights {weights.tolist()}"
                    expect(fine, "sum to one", text)

    def one_option(self) -> None:
        """A single option has the weight one."""
        alpha = self.relaxation.nearest(torch.tensor([0.3]))
        for weights in (self.relaxation.weights(alpha, 0.5), self.relaxation.expected(alpha)):
            text = f"the weight of a single option is {weights.tolist()}"
            expect(torch.allclose(weights, torch.ones(1)), "one option", text)

    def evaluation(self) -> None:
        """The weights of evaluation are the same every time and touch no random state."""
        alpha = self.relaxation.nearest(torch.tensor([0.2, 1.0, -0.5]))
        torch.manual_seed(0)
        before = torch.get_rng_state()
        first = self.relaxation.expected(alpha)
        untouched = torch.equal(before, torch.get_rng_state())
        expect(untouched, "evaluation", "`expected` draws random numbers")
        same = torch.equal(first, self.relaxation.expected(alpha))
        expect(same, "evaluation", "`expected` differs from call to call")

    def seed(self) -> None:
        """All randomness comes from torch's generator."""
        alpha = self.relaxation.nearest(torch.tensor([0.2, 0.9, -0.5]))
        drawn = []
        for _ in range(2):
            torch.manual_seed(3)
            drawn.append(torch.stack([self.relaxation.weights(alpha, 0.5) for _ in range(5)]))
        expect(torch.equal(*drawn), "seed", "the same torch seed gives other weights")

    def argmax(self) -> None:
        """The largest alpha wins, in evaluation and on average in training, at any temperature.

        As the search proceeds the weights must not become less sharp.
        """
        alpha = self.relaxation.nearest(torch.tensor([0.0, 0.9, -1.0, 0.5]))
        expected = self.relaxation.expected(alpha)
        expect(int(expected.argmax()) == 1, "argmax", f"`expected` gives {expected.tolist()}")
        torch.manual_seed(0)
        sharpness = []
        for progress in _PROGRESS:
            drawn = torch.stack([self.relaxation.weights(alpha, progress) for _ in range(400)])
            mean = drawn.mean(0)
            text = f"at progress {progress} the mean weights are {mean.tolist()}"
            expect(int(mean.argmax()) == 1, "argmax", text)
            sharpness.append(drawn.max(-1).values.mean().item())
        falls = any(later < earlier - 0.02 for earlier, later in pairwise(sharpness))
        expect(not falls, "argmax", f"the mean largest weight falls over the search: {sharpness}")

    def gradient(self) -> None:
        """Every alpha of every space receives a gradient that is not far below the softmax's.

        Weights are trained meanwhile: an encoder whose last layer starts at zero, as a prefix's
        does, gives no alpha a gradient before its first step.
        """
        for space in self.spaces:
            mine, usual = self._gradients(space, self.relaxation), self._gradients(space, Softmax())
            for name, gradient in mine.items():
                share = gradient / usual[name].clamp_min(1e-12)
                text = (
                    f"an alpha of {name!r} in space {space.name!r} receives {share.min():.1e} of "
                    f"the gradient that softmax gives it; the floor is {self.floor}"
                )
                expect(len(share) == 1 or bool(share.min() > self.floor), "gradient", text)

    def _gradients(self, space: SearchSpace, relaxation: Relaxation) -> dict[str, Tensor]:
        torch.manual_seed(0)
        objective = self.objective()
        net = Supernet(space, objective.width, relaxation)
        objective.reset(net, 0)
        weights = torch.optim.AdamW(objective.parameters(), lr=1e-3)
        total = {decision.name: torch.zeros(len(decision.options)) for decision in net.decisions}
        for draw in range(self.draws):
            net.zero_grad(set_to_none=True)
            weights.zero_grad(set_to_none=True)
            net.progress = draw / self.draws
            objective.backward("train")
            for decision, alpha in zip(net.decisions, net.alphas, strict=True):
                if alpha.grad is not None:
                    total[decision.name] += alpha.grad.abs() / self.draws
            weights.step()
        return total

    def pruned(self) -> None:
        """In a supernet, a pruned option has no part in the output and receives no gradient."""
        torch.manual_seed(0)
        space = SearchSpace("pruned", Seq("linear", Choice("f", ["relu", "tanh", "sigmoid"])))
        net = Supernet(space, 4, self.relaxation)
        with torch.no_grad():
            net.alphas[0].copy_(self.relaxation.nearest(torch.tensor([0.5, 0.2, -9.0])))
        net.prune(0.01)
        torch.manual_seed(1)
        hidden = torch.randn(5, 4)
        state = torch.get_rng_state()
        mixed = net(hidden)
        torch.set_rng_state(state)
        left = self.relaxation.weights(net.alphas[0].detach()[:2], 0.0)
        linear = net.get_submodule("root.parts.0")(hidden)
        by_hand = left[0] * torch.relu(linear) + left[1] * torch.tanh(linear)
        same = torch.allclose(mixed, by_hand, atol=1e-6)
        expect(same, "pruned", "the output is not the mixture of the options that are left")
        mixed.square().sum().backward()
        gradient = net.alphas[0].grad
        if gradient is None or gradient[2] != 0:
            raise BrokenPromise("pruned", f"the alphas receive the gradient {gradient}")


def check_relaxation(
    relaxation: Relaxation,
    *,
    spaces: Sequence[SearchSpace] | None = None,
    floor: float = 0.01,
    draws: int = 40,
    objective: Callable[[], Objective] = ToyObjective,
) -> None:
    """Check every promise of a relaxation, on every shipped space if none are given.

    See `RelaxationCheck` for the arguments.

    Raises:
        BrokenPromise: Names the first promise that does not hold.
    """
    check = RelaxationCheck(
        relaxation, shipped_spaces() if spaces is None else spaces, floor, draws, objective
    )
    for promise in promises_of(RelaxationCheck):
        getattr(check, promise)()


@a_test_for_each(RelaxationCheck)
class RelaxationContract(ABC):
    """The promises of a relaxation as pytest tests; subclass it and say which relaxation."""

    @abstractmethod
    def relaxation(self) -> Relaxation:
        """Return the relaxation."""

    def spaces(self) -> Sequence[SearchSpace]:
        """Return the spaces on which gradients are measured."""
        return shipped_spaces()

    def objective(self) -> Callable[[], Objective]:
        """Return what makes the objective whose loss is differentiated."""
        return ToyObjective

    def check(self) -> RelaxationCheck:
        """Return the checks."""
        return RelaxationCheck(self.relaxation(), self.spaces(), objective=self.objective())

    def keep(self, promise: str) -> None:
        """Check one promise."""
        getattr(self.check(), promise)()
