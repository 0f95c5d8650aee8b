"""All learning rates of a row's weights, times one factor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peml.methods.method import METHODS, RATE
from peml.objective.config import LanguageModelProblem
from peml.objective.rates import CONCAT
from peml.prefix.kinds import prefix_attention
from prefixnas.base.errors import UserError
from prefixnas.base.options import fields_of
from prefixnas.space.space import NO_MODULE

SUFFIX = "learning_rate"


def scaled(values: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """Return a configuration whose weights learn so many times as fast.

    What is left open follows the method's own rate, which is then written out. The alphas' rate,
    which belongs to the strategy, stays.

    Args:
        values: Every key of a run.
        factor: The factor.

    Raises:
        UserError: Gates that are left open would follow the method's rate instead of LoRA's.
    """
    made = dict(values)
    if factor == 1:
        return made
    method = str(values["method"])
    gated = prefix_attention(str(values["prefix_attention"])).head_gates
    common = RATE if made["learning_rate"] is None else made["learning_rate"]
    if made["learning_rate"] is None:
        made["learning_rate"] = METHODS.get(method).rate
        if gated and made["learning_rate"] != RATE and _open_gates(values):
            raise UserError(
                f"key 'gate_learning_rate': method {method!r} has a rate of its own, and the "
                "prefix's gates follow LoRA's; where rates are tried, set it, or learning_rate"
            )
    if made["prefix_learning_rate"] is None:
        made["prefix_learning_rate"] = common if gated else CONCAT
    for name in fields_of({"objective": LanguageModelProblem.of(method)}):
        if name.endswith(SUFFIX) and made[name] is not None:
            made[name] *= factor
    return made


def _open_gates(values: Mapping[str, Any]) -> bool:
    return values["space"] != NO_MODULE and values["gate_learning_rate"] is None
