"""The decisions of a search space that the prefix carries out itself (`SearchSpace.knobs`).

| knob | options | decided by |
|---|---|---|
| `length` | numbers of virtual tokens | trial |
| `start` | `random`, `zero`, `text` | trial |
| `attention0/gate`, `attention1/gate`, ... | `on`, `off` | alpha or trial |

A gate is a weight g in [0, 1] per attention site. It multiplies the share of attention that the
prefix gets, by adding log(g) to its logits: with g = 1 the site reads the whole prefix, with g = 0
none of it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from peml.objective.options import LanguageModelConfig
from prefixnas.base.errors import UserError, unknown
from prefixnas.network.supernet import knobs_of
from prefixnas.space.space import Decision

LENGTH, START = "length", "start"
_KEYS = {LENGTH: "prefix_length", START: "prefix_start"}


def gate(site: int) -> str:
    """Return the name of a site's gate."""
    return f"attention{site}/gate"


def check_knobs(
    knobs: Sequence[Decision], sites: int, starts: Collection[str], config: LanguageModelConfig
) -> None:
    """Refuse knobs that a prefix does not have, or that an option decides already.

    Args:
        knobs: The space's decisions.
        sites: Number of attention sites of the model.
        starts: Names of the starting points.
        config: The options of the objective.

    Raises:
        UserError: Unknown knob or option, or a knob that alpha cannot decide.
    """
    gates = [gate(site) for site in range(sites)]
    for knob in knobs:
        where, key = f"knob {knob.name!r}", _KEYS.get(knob.name)
        if key and getattr(config, key) != getattr(LanguageModelConfig, key):
            raise UserError(
                f"key {key!r}: the space decides it by its {where}; leave the key out, "
                f"or set {knob.name}=..."
            )
        if knob.name not in (LENGTH, START, *gates):
            raise unknown("knob", knob.name, [LENGTH, START, *gates], "the prefix")
        if knob.name in gates:
            allowed = ["on", "off"]
        elif knob.decided_by != "trial":
            raise UserError(f"{where}: alpha cannot decide it; say decided_by: trial")
        else:
            allowed = [*starts] if knob.name == START else []
        for option in knob.options:
            if allowed and option not in allowed:
                raise unknown("option", option, allowed, where)
            if not allowed and (not option.isdecimal() or int(option) < 1):
                raise UserError(f"{where}: must be whole numbers of at least 1, not {option!r}")


def decided(module: nn.Module | None, knob: str) -> str | None:
    """Return the option of a knob that is decided by trial; None where the space has no such."""
    options = knobs_of(module).get(knob, {})
    return next(iter(options), None)


@dataclass(frozen=True)
class Gates:
    """Which attention sites read the prefix, and how much of it.

    Attributes:
        weights: Per site, None for all of it, or the gate's weight as a number in [0, 1]; a site
            that reads nothing for good is not in it.
    """

    weights: dict[int, Tensor | None]

    @property
    def sites(self) -> list[int]:
        """The sites that read the prefix, in order."""
        return [*self.weights]

    @cached_property
    def soft(self) -> list[Tensor]:
        """The weights of the gates that are still open to both sides."""
        return [weight for weight in self.weights.values() if weight is not None]

    def leaves(self) -> Gates:
        """Return the same gates apart from what computed them, to gather their gradients in."""
        return Gates(
            {
                site: weight if weight is None else weight.detach().requires_grad_()
                for site, weight in self.weights.items()
            }
        )


def gates_of(module: nn.Module | None, numbers: Sequence[int]) -> Gates:
    """Read the gates off a searched module; a site without a gate reads the whole prefix.

    Args:
        module: The module.
        numbers: Per site, the number of its gate in the search space.
    """
    knobs = knobs_of(module)
    weights: dict[int, Tensor | None] = {}
    for site, number in enumerate(numbers):
        options = knobs.get(gate(number), {"on": torch.ones(())})
        weight = options.get("on", torch.zeros(()))
        if weight.requires_grad or 0 < weight < 1:
            weights[site] = weight
        elif weight > 0:
            weights[site] = None
    return Gates(weights)
