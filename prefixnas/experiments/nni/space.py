"""An experiment's hyper-parameters in NNI's words: its search space, and values in its form.

The web interface draws from them. Nested choices are NNI's `choice` of mappings with a `_name`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prefixnas.experiments.hyperparameters import (
    Alternatives,
    Hyperparameter,
    Range,
    by_label,
)

NAME = "_name"


def to_nni(hyperparameters: Sequence[Hyperparameter]) -> dict[str, Any]:
    """Return the search space as NNI writes it."""
    return {parameter.key: _spec(parameter) for parameter in hyperparameters}


def _spec(parameter: Hyperparameter) -> dict[str, Any]:
    if isinstance(parameter, Range):
        low, high = parameter.low, parameter.high
        if parameter.whole and parameter.log:
            return {"_type": "qloguniform", "_value": [low, high, 1]}
        if parameter.whole:
            return {"_type": "randint", "_value": [low, high + 1]}
        return {"_type": "loguniform" if parameter.log else "uniform", "_value": [low, high]}
    if _is_nested(parameter):
        branches = [{NAME: option.label, **to_nni(option.within)} for option in parameter.options]
        return {"_type": "choice", "_value": branches}
    return {"_type": "choice", "_value": [option.label for option in parameter.options]}


def _is_nested(choice: Alternatives) -> bool:
    return any(option.within for option in choice.options)


def depth(hyperparameters: Sequence[Hyperparameter]) -> int:
    """Return how deep choices are nested: 0 if none has hyper-parameters of its own."""
    inner = [
        1 + depth(option.within)
        for parameter in hyperparameters
        if isinstance(parameter, Alternatives)
        for option in parameter.options
        if option.within
    ]
    return max(inner, default=0)


def pack(hyperparameters: Sequence[Hyperparameter], answers: Mapping[str, Any]) -> dict[str, Any]:
    """Return a trial's values in NNI's form.

    Args:
        hyperparameters: The experiment's.
        answers: Per name of a hyper-parameter in the study its number or label.
    """
    return {parameter.key: _packed(parameter, answers) for parameter in hyperparameters}


def _packed(parameter: Hyperparameter, answers: Mapping[str, Any]) -> Any:
    answer = answers[parameter.name]
    if isinstance(parameter, Range) or not _is_nested(parameter):
        return answer
    return {NAME: answer, **pack(by_label(parameter, answer).within, answers)}


def unpack(hyperparameters: Sequence[Hyperparameter], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answers of which `pack` made the values.

    Numbers that NNI's own tuners propose are made to fit: whole where they are to be whole.
    """
    answers: dict[str, Any] = {}
    for parameter in hyperparameters:
        value = values[parameter.key]
        if isinstance(parameter, Range):
            number = round(value) if parameter.whole else float(value)
            value = min(max(number, parameter.low), parameter.high)
        elif isinstance(value, Mapping):
            answers |= unpack(by_label(parameter, value[NAME]).within, value)
            value = value[NAME]
        answers[parameter.name] = value
    return answers
