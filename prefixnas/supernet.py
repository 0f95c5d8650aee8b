"""The supernet: a space with all candidates of its alpha choices, children cut out of it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from prefixnas.architecture import Architecture
from prefixnas.child import (
    Build,
    Child,
    build_child,
    build_node,
    check_operations,
    count_parameters,
    one_width,
)
from prefixnas.errors import UserError
from prefixnas.mixture import Composite, Dropped, Mixture, run
from prefixnas.relaxation import Relaxation, Softmax
from prefixnas.space import Choice, Decision, SearchSpace, option_scope

__all__ = [
    "Child",
    "Supernet",
    "build_child",
    "check_operations",
    "count_parameters",
    "weights_of",
]


class Supernet(nn.Module):
    """A space with all candidates of its alpha choices, weighted by a relaxation of alpha.

    Args:
        space: The search space.
        width: Width of the input.
        relaxation: From alpha to weights; softmax if not given.
        settings: Options of choices that are not to be mixed (see `SearchSpace.settle`); a choice
            that is decided by trial and not set here is held at its first option.

    Attributes:
        progress: Share of the search that is done, in [0, 1], set by the strategy; it drives the
            relaxation's temperature.
        decisions: The decisions that are mixed, in the order of `alphas`: those by alpha, except
            where they are set or stand inside an option that was not taken.
        alphas: One parameter `[options]` per decision.
    """

    def __init__(
        self,
        space: SearchSpace,
        width: int,
        relaxation: Relaxation | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.space = space
        self.relaxation = relaxation or Softmax()
        self.progress = 0.0
        self.settings = space.settle(settings or {})
        self.root, self.width_out = build_node(space.root, "", width, self._mixture)
        self.decisions: tuple[Decision, ...] = tuple(
            decision
            for decision in space.decisions
            if decision.name not in self.settings
            and all(
                self.settings.get(name, option) == option for name, option in decision.conditions
            )
        )
        self.width = width
        self.alphas = nn.ParameterList(
            nn.Parameter(1e-3 * torch.randn(len(decision.options))) for decision in self.decisions
        )
        self._alive = nn.Module()
        for index, decision in enumerate(self.decisions):
            mask = torch.ones(len(decision.options), dtype=torch.bool)
            self._alive.register_buffer(str(index), mask)

    def _mixture(
        self, choice: Choice, scope: str, width: int, build: Build
    ) -> tuple[nn.Module, int]:
        name = scope + choice.key
        if choice.decided_by == "trial" or name in self.settings:
            label = self.settings.get(name, choice.options[0].label)
            option = next(option for option in choice.options if option.label == label)
            self.settings[name] = label
            return build(option, option_scope(scope, choice, option), width)
        built = [
            build(option, option_scope(scope, choice, option), width) for option in choice.options
        ]
        labels = tuple(option.label for option in choice.options)
        return Mixture(name, labels, [module for module, _ in built]), one_width(
            built, f"choice {name!r}"
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """Map `hidden [..., width]` to the mixture's output `[..., width_out]`."""
        weights = {}
        for index, decision in enumerate(self.decisions):
            alpha, alive = self.alphas[index], self.alive(index)
            left = alpha[alive]
            mixed = (
                self.relaxation.weights(left, self.progress)
                if self.training
                else self.relaxation.expected(left)
            )
            weights[decision.name] = torch.zeros_like(alpha).index_put(
                (alive.nonzero()[:, 0],), mixed
            )
        return run(self.root, hidden, weights)

    def alive(self, index: int) -> Tensor:
        """Return which options of decision `index` are left: bool `[options]`."""
        mask = self._alive.get_buffer(str(index))
        return mask

    def probabilities(self) -> dict[str, Tensor]:
        """Return `softmax(alpha)` per decision, 0 where pruned, without gradient: `[options]`."""
        return {
            decision.name: self._probability(index).detach()
            for index, decision in enumerate(self.decisions)
        }

    def _probability(self, index: int) -> Tensor:
        alpha = self.alphas[index].masked_fill(~self.alive(index), -torch.inf)
        return torch.softmax(alpha, dim=-1)

    def entropies(self) -> dict[str, Tensor]:
        """Return the entropy of `softmax(alpha)` per decision, in nats, with gradient."""
        return {
            decision.name: torch.special.entr(
                torch.softmax(self.alphas[index][self.alive(index)], dim=-1)
            ).sum()
            for index, decision in enumerate(self.decisions)
        }

    def entropy(self) -> Tensor:
        """Return the regulariser R(alpha) of eq. 5: the sum of all decisions' entropies."""
        values = list(self.entropies().values())
        return torch.stack(values).sum() if values else torch.zeros(())

    def prune(self, threshold: float) -> list[tuple[str, str]]:
        """Drop every candidate whose probability is below `threshold`, never the last one.

        A dropped candidate costs no compute any more.

        Returns:
            The decisions and options that went.
        """
        dropped = []
        for index, decision in enumerate(self.decisions):
            probability = self._probability(index).detach()
            keep = probability >= threshold
            keep[int(probability.argmax())] = True
            gone = self.alive(index) & ~keep
            self.alive(index).copy_(self.alive(index) & keep)
            dropped += [
                (decision.name, option)
                for option, out in zip(decision.options, gone.tolist(), strict=True)
                if out
            ]
        self.drop_pruned()
        return dropped

    def drop_pruned(self) -> None:
        """Put `Dropped` in the place of every candidate that is not alive."""
        position = {decision.name: index for index, decision in enumerate(self.decisions)}
        for module in list(self.root.modules()):
            if isinstance(module, Mixture):
                for option, alive in enumerate(self.alive(position[module.decision]).tolist()):
                    if not alive and not isinstance(module.parts[option], Dropped):
                        module.parts[option] = Dropped()

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Restore weights, alphas and what was pruned."""
        for index in range(len(self.decisions)):
            self.alive(index).copy_(state_dict[f"_alive.{index}"])
        self.drop_pruned()
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    def architecture(self) -> Architecture:
        """Return the discretised architecture: argmax of alpha per decision (eq. 8)."""
        best = {
            decision.name: decision.options[int(self._probability(index).argmax())]
            for index, decision in enumerate(self.decisions)
        }
        return self.space.choose(lambda d: best.get(d.name) or self.settings[d.name])

    def child(self, architecture: Architecture | None = None) -> Child:
        """Return a copy of one architecture with the weights it has here.

        Args:
            architecture: The argmax if not given.

        Raises:
            UserError: The architecture has an option that was pruned, or is not of this space.
        """
        return copy.deepcopy(self.cut(architecture))

    def cut(self, architecture: Architecture | None = None) -> Child:
        """Return one architecture with the very weights it has here, so that training goes on.

        Args:
            architecture: The argmax if not given.

        Raises:
            UserError: The architecture has an option that was pruned, or is not of this space.
        """
        chosen = self.space.validate(architecture or self.architecture())
        for name, option in self.settings.items():
            if chosen.get(name, option) != option:
                raise UserError(f"this supernet holds {name!r} as {option!r}, not {chosen[name]!r}")
        root = _collapse(self.root, chosen)
        return Child(chosen, root, self.width, self.width_out).train(self.training)


def weights_of(module: nn.Module) -> list[nn.Parameter]:
    """Return the trainable parameters of a searched module, without a supernet's alphas."""
    own = module.root if isinstance(module, Supernet) else module
    return [parameter for parameter in own.parameters() if parameter.requires_grad]


def _collapse(module: nn.Module, architecture: Architecture) -> nn.Module:
    """Return the tree with each mixture replaced by the option that was chosen."""
    if isinstance(module, Mixture):
        option = architecture[module.decision]
        part = module.parts[module.options.index(option)]
        if isinstance(part, Dropped):
            raise UserError(f"option {option!r} of {module.decision!r} was pruned")
        return _collapse(part, architecture)
    if isinstance(module, Composite):
        return type(module)([_collapse(part, architecture) for part in module.parts])
    return module
