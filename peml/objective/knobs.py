"""The decisions of a search space that the prefix carries out itself (`SearchSpace.knobs`).

| knob | options | decided by |
|---|---|---|
| `length` | numbers of virtual tokens | trial |
| `start` | `random`, `zero`, `text` | trial |
| `attention0/gate`, `attention1/gate`, ... | `on`, `off` | alpha or trial |

What a gate does is said in `peml.prefix.gates`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from torch import nn

from peml.objective.options import LONGEST, LanguageModelOptions
from peml.prefix.gates import gate
from prefixnas.base.errors import UserError, brief, unknown
from prefixnas.network.supernet import knobs_of
from prefixnas.space.space import Decision

LENGTH, START = "length", "start"
_KEYS = {LENGTH: "prefix_length", START: "prefix_start"}


def check_knobs(
    knobs: Sequence[Decision], sites: int, starts: Collection[str], config: LanguageModelOptions
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
        if key and getattr(config, key) != getattr(LanguageModelOptions, key):
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
            if not allowed and not (option.isdecimal() and 1 <= int(option) <= LONGEST):
                raise UserError(
                    f"{where}: must be whole numbers of at least 1 and at most {LONGEST:,}, "
                    f"not {brief(option)}"
                )


def decided(module: nn.Module | None, knob: str) -> str | None:
    """Return the option of a knob that is decided by trial; None where the space has no such."""
    options = knobs_of(module).get(knob, {})
    return next(iter(options), None)
