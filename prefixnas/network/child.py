"""From a space and an architecture to a module.

A child and a supernet are built by the same walk over the tree, so a child cut out of a supernet
has the same parameter names as one built from its architecture alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import torch
from torch import Tensor, nn

from prefixnas.base.errors import UserError
from prefixnas.network.mixture import Branches, Chain, run
from prefixnas.space.architecture import Architecture
from prefixnas.space.decisions import Decision
from prefixnas.space.nodes import Choice, Node, Op, Seq, Stack, Sum, option_scope
from prefixnas.space.ops import make_op, width_after
from prefixnas.space.space import SearchSpace

Build = Callable[[Node, str, int], tuple[nn.Module, int]]
"""Builds a node in a scope for an input width; returns its module and the width of its output."""

Decide = Callable[[Choice, str, int, Build], tuple[nn.Module, int]]
"""Builds a choice in a scope for an input width, with a `Build` for its options."""


Layers = Callable[[Stack, str], int]
"""Says how many layers a stack in a scope gets."""

WIDEST = 1_000_000
"""The most features that an operation of a space may make."""

Knobs = dict[str, dict[str, Tensor]]
"""Per knob, the weight of each option that is still in question: a number that sums to one."""


def build_node(
    node: Node, scope: str, width: int, decide: Decide, layers: Layers
) -> tuple[nn.Module, int]:
    """Build the module of `node`; return it with the width of its output."""

    def deeper(inner: Node, inner_scope: str, inner_width: int) -> tuple[nn.Module, int]:
        return build_node(inner, inner_scope, inner_width, decide, layers)

    if isinstance(node, Op):
        module = make_op(node.name, node.args, dict(node.kwargs), width)
        if (after := width_after(module, width)) > WIDEST:
            raise UserError(
                f"operation {node.label!r} makes {after:,} features, at most {WIDEST:,}"
            )
        return module, after
    if isinstance(node, Choice):
        return decide(node, scope, width, deeper)
    if isinstance(node, Sum):
        built = [deeper(branch, scope, width) for branch in node.branches]
        return Branches([module for module, _ in built]), one_width(built, f"the sum {node.label}")
    chain: list[tuple[Node, str]] = []
    if isinstance(node, Stack):
        chain = [(node.cell, inner) for inner in node.scopes(scope)[: layers(node, scope)]]
    elif isinstance(node, Seq):
        chain = [(part, scope) for part in node.nodes]
    parts = []
    for part, part_scope in chain:
        module, width = deeper(part, part_scope, width)
        parts.append(module)
    return Chain(parts), width


def one_width(built: Sequence[tuple[nn.Module, int]], place: str) -> int:
    """Return the width that all parts give.

    Raises:
        UserError: They differ.
    """
    widths = {width for _, width in built}
    if len(widths) > 1:
        raise UserError(f"{place}: its parts give different widths {sorted(widths)}")
    return widths.pop()


class Child(nn.Module):
    """The module of one architecture: `[..., width]` to `[..., width_out]`.

    Args:
        architecture: What it realises.
        root: The module tree, without mixtures.
        width: Width of the input.
        width_out: Width of the output.
        knobs: The space's decisions that the objective carries out.
    """

    def __init__(
        self,
        architecture: Architecture,
        root: nn.Module,
        width: int,
        width_out: int,
        knobs: Sequence[Decision] = (),
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.root = root
        self.width = width
        self.width_out = width_out
        self._knobs = [decision.name for decision in knobs if decision.name in architecture]

    def forward(self, hidden: Tensor) -> Tensor:
        """Map `hidden [..., width]` to `[..., width_out]`."""
        return run(self.root, hidden, {})

    def knobs(self) -> Knobs:
        """Return the chosen option per knob, with the weight 1: `{"length": {"10": 1.0}}`."""
        return {name: {self.architecture[name]: torch.ones(())} for name in self._knobs}


def knobs_of(module: nn.Module | None) -> Knobs:
    """Return the knobs of a searched module; none of one that is no supernet and no child."""
    knobs: Callable[[], Knobs] = getattr(module, "knobs", dict)
    return knobs()


def build_child(space: SearchSpace, architecture: Architecture, width: int) -> Child:
    """Build the module of an architecture with fresh weights.

    Raises:
        UserError: The architecture is not of this space, or an operation's parameters are wrong.
    """
    space.validate(architecture)

    def decide(choice: Choice, scope: str, width: int, build: Build) -> tuple[nn.Module, int]:
        label = architecture[scope + choice.key]
        option = next(option for option in choice.options if option.label == label)
        return build(option, option_scope(scope, choice, option), width)

    def layers(stack: Stack, scope: str) -> int:
        if isinstance(stack.layers, Choice):
            return int(architecture[scope + stack.layers.key])
        return max(stack.depths)

    root, width_out = build_node(space.root, "", width, decide, layers)
    return Child(architecture, root, width, width_out, space.knob_decisions)


def count_parameters(space: SearchSpace, architecture: Architecture, width: int) -> int:
    """Count the trainable parameters of a child; no memory is taken for them."""
    with torch.device("meta"):
        return _trainable(build_child(space, architecture, width))


def count_at_most(
    space: SearchSpace, settings: Mapping[str, str], width: int, *, together: bool
) -> int:
    """Count the parameters of a space that train at a time, at most; no memory is taken for them.

    Args:
        space: The space.
        settings: Options of choices that are set by hand.
        width: Width of the input.
        together: All candidates of the choices by alpha at once, as in a supernet; else one of
            each choice, as in a child.
    """
    held = space.settle(settings)

    def decide(choice: Choice, scope: str, width: int, build: Build) -> tuple[nn.Module, int]:
        label = held.get(scope + choice.key)
        built = [
            build(option, option_scope(scope, choice, option), width)
            for option in choice.options
            if label in (None, option.label)
        ]
        if together and choice.decided_by == "alpha":
            return nn.ModuleList([module for module, _ in built]), built[0][1]
        return max(built, key=lambda one: _trainable(one[0]))

    # As in `check_operations`; of what cannot be built without memory nothing is known.
    with torch.device("meta"), suppress(NotImplementedError, RuntimeError):
        return _trainable(
            build_node(space.root, "", width, decide, lambda stack, scope: max(stack.depths))[0]
        )
    return 0


def _trainable(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def check_operations(space: SearchSpace, width: int) -> None:
    """Build every candidate of a space once, without memory, to find wrong parameters.

    Raises:
        UserError: An operation cannot be built with the parameters that the space gives it.
    """

    def decide(choice: Choice, scope: str, width: int, build: Build) -> tuple[nn.Module, int]:
        built = [
            build(option, option_scope(scope, choice, option), width) for option in choice.options
        ]
        return built[0]

    # A user's operation may compute something while it is built, which no meta tensor can.
    with torch.device("meta"), suppress(NotImplementedError, RuntimeError):
        build_node(space.root, "", width, decide, lambda stack, scope: max(stack.depths))
