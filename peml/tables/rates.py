"""All learning rates of a row's weights, times one factor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peml.methods.method import METHODS, RATE
from peml.objective.config import LanguageModelProblem
from peml.objective.rates import CONCAT
from peml.prefix.kinds import prefix_attention
from prefixnas.base.options import fields_of

SUFFIX = "learning_rate"


def scaled(values: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """Return a configuration whose weights learn so many times as fast.

    What is left open follows the method's own rate, which is then written out. The alphas' rate,
    which belongs to the strategy, stays.

    Args:
        values: Every key of a run.
        factor: The factor.
    """
    made = dict(values)
    if factor == 1:
        return made
    method = str(values["method"])
    common = RATE if made["learning_rate"] is None else made["learning_rate"]
    if made["learning_rate"] is None:
        made["learning_rate"] = METHODS.get(method).rate
    if made["prefix_learning_rate"] is None:
        gated = prefix_attention(str(values["prefix_attention"])).head_gates
        made["prefix_learning_rate"] = common if gated else CONCAT
    for name in fields_of({"objective": LanguageModelProblem.of(method)}):
        if name.endswith(SUFFIX) and made[name] is not None:
            made[name] *= factor
    return made
