"""The supernet: a space with all candidates of its alpha choices, children cut out of it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from prefixnas.base.errors import UserError
from prefixnas.network.child import (
    Build,
    Child,
    Knobs,
    build_child,
    build_node,
    check_operations,
    count_at_most,
    count_parameters,
    knobs_of,
    one_width,
)
from prefixnas.network.mixture import Composite, Dropped, Mixture, run
from prefixnas.network.relaxations import Relaxation, Softmax
from prefixnas.space.architecture import Architecture
from prefixnas.space.decisions import Decision
from prefixnas.space.nodes import Choice, Stack, option_scope
from prefixnas.space.space import SearchSpace

__all__ = [
    "Child",
    "Supernet",
    "build_child",
    "check_operations",
    "count_at_most",
    "count_parameters",
    "knobs_of",
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

    Example:
        >>> from prefixnas import Choice, Seq, Stack
        >>> space = SearchSpace("small", Stack(2, Seq("linear", Choice("act", ["relu", "tanh"]))))
        >>> net = Supernet(space, width=8)
        >>> net(torch.randn(5, 8)).shape
        torch.Size([5, 8])
        >>> with torch.no_grad():
        ...     for alpha, values in zip(net.alphas, ([1.0, 0.0], [0.0, 1.0])):
        ...         _ = alpha.copy_(torch.tensor(values))
        >>> net.architecture().choices
        {'layer0/act': 'relu', 'layer1/act': 'tanh'}
        >>> net.cut()(torch.randn(5, 8)).shape
        torch.Size([5, 8])
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
        self.root, self.width_out = build_node(space.root, "", width, self._mixture, self._layers)
        for knob in space.knob_decisions:
            if knob.decided_by == "trial" and knob.active(self.settings):
                self.settings.setdefault(knob.name, knob.options[0])
        self.decisions: tuple[Decision, ...] = space.mixed(self.settings)
        self.width = width
        self.alphas = nn.ParameterList(
            nn.Parameter(self.relaxation.start(len(decision.options)))
            for decision in self.decisions
        )
        self._drawn: dict[str, Tensor] = {}
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
        parts, one_path = [module for module, _ in built], self.relaxation.one_path
        return Mixture(name, labels, parts, one_path), one_width(built, f"choice {name!r}")

    def _layers(self, stack: Stack, scope: str) -> int:
        if not isinstance(stack.layers, Choice):
            return max(stack.depths)
        first = stack.layers.options[0].label
        return int(self.settings.setdefault(scope + stack.layers.key, first))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_drawn": {}}  # a copy cannot have the graph behind the weights

    def forward(self, hidden: Tensor) -> Tensor:
        """Map `hidden [..., width]` to the mixture's output `[..., width_out]`."""
        self._drawn = self._weights(self.training)
        return run(self.root, hidden, self._drawn)

    def drawn(self) -> dict[str, Tensor]:
        """Return every decision's weights `[options]`, with gradient, as the last pass drew them.

        Before the first pass they are the weights of evaluation.
        """
        return self._drawn or self._weights(training=False)

    def knobs(self) -> Knobs:
        """Return the weights of the knobs' options, with gradient, as the last pass drew them.

        Before the first pass they are the weights of evaluation. An option that was pruned, or is
        not the one that the supernet holds, is left out; what is left alone has the weight 1.
        """
        drawn = self.drawn()
        alive = {decision.name: self.alive(i).tolist() for i, decision in enumerate(self.decisions)}
        knobs: Knobs = {}
        for decision in self.space.knob_decisions:
            name = decision.name
            if name in alive:
                left = [option for option, is_left in enumerate(alive[name]) if is_left]
                knobs[name] = {decision.options[option]: drawn[name][option] for option in left}
            elif decision.active(self.settings):
                knobs[name] = {self.settings[name]: torch.ones(())}
            if len(options := knobs.get(name, {})) == 1:
                knobs[name] = dict.fromkeys(options, torch.ones(()))
        return knobs

    def _weights(self, training: bool) -> dict[str, Tensor]:
        weights = {}
        for index, decision in enumerate(self.decisions):
            weights[decision.name] = self._among_alive(
                index,
                lambda left: (
                    self.relaxation.weights(left, self.progress)
                    if training
                    else self.relaxation.expected(left)
                ),
            )
        return weights

    def _among_alive(self, index: int, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Return `function` of the alphas that are left, with 0 where an option was pruned."""
        alpha, alive = self.alphas[index], self.alive(index)
        if bool(alive.all()):
            return function(alpha)
        places = alive.nonzero()[:, 0]
        return torch.zeros_like(alpha).index_put((places,), function(alpha[places]))

    def alive(self, index: int) -> Tensor:
        """Return which options of decision `index` are left: bool `[options]`."""
        mask = self._alive.get_buffer(str(index))
        return mask

    def probabilities(self) -> dict[str, Tensor]:
        """Return what alpha says per decision, 0 where pruned, without gradient: `[options]`."""
        return {
            decision.name: self._probability(index).detach()
            for index, decision in enumerate(self.decisions)
        }

    def _probability(self, index: int) -> Tensor:
        return self._among_alive(index, self.relaxation.probabilities)

    def entropies(self) -> dict[str, Tensor]:
        """Return the entropy of the probabilities per decision, in nats, with gradient."""
        return {
            decision.name: torch.special.entr(
                self.relaxation.probabilities(self.alphas[index][self.alive(index)])
            ).sum()
            for index, decision in enumerate(self.decisions)
        }

    def entropy(self) -> Tensor:
        """Return the regulariser R(alpha) of eq. 5: the sum of all decisions' entropies."""
        values = list(self.entropies().values())
        return torch.stack(values).sum() if values else torch.zeros(())

    def prune(self, threshold: float, share: float = 1.0) -> list[tuple[str, str]]:
        """Drop every candidate whose probability is below `threshold`, never the last one.

        A dropped candidate costs no compute any more.

        Args:
            threshold: The least probability that stays. Where equal candidates would fall below it,
                because there are many, half of an equal share takes its place.
            share: Share of a decision's candidates that may stay, the likeliest.

        Returns:
            The decisions and options that went.
        """
        dropped = []
        for index in range(len(self.decisions)):
            probability = self._probability(index).detach()
            equal = 1 / len(probability)
            keep = probability >= (threshold if threshold < equal else equal / 2)
            ranked = probability.argsort(descending=True, stable=True)
            keep[ranked[math.ceil(share * len(ranked)) :]] = False
            keep[int(probability.argmax())] = True
            dropped += self._keep(index, keep)
        return dropped

    def keep(self, decision: str, option: str) -> list[tuple[str, str]]:
        """Drop every candidate of a decision but one; return the decision and option of each."""
        index = [known.name for known in self.decisions].index(decision)
        keep = [label == option for label in self.decisions[index].options]
        return self._keep(index, torch.tensor(keep, device=self.alive(index).device))

    def _keep(self, index: int, keep: Tensor) -> list[tuple[str, str]]:
        decision, alive = self.decisions[index], self.alive(index)
        gone = (alive & ~keep).tolist()
        alive.copy_(alive & keep)
        self.drop_pruned()
        options = zip(decision.options, gone, strict=True)
        return [(decision.name, option) for option, out in options if out]

    @contextmanager
    def without(self, decision: str, option: str) -> Iterator[None]:
        """Leave a candidate out of the mixture for a while; another one must be left."""
        index = [known.name for known in self.decisions].index(decision)
        alive = self.alive(index)
        before = alive.clone()
        alive[self.decisions[index].options.index(option)] = False
        try:
            yield
        finally:
            alive.copy_(before)

    def drop_pruned(self) -> None:
        """Put `Dropped` in the place of every candidate that is not alive."""
        self._drawn = {}
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
        return Child(chosen, root, self.width, self.width_out, self.space.knob_decisions).train(
            self.training
        )


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
