"""Hyper-parameters in NNI's words, there and back."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from prefixnas.experiments.hyperparameters import assign, read_hyperparameters
from prefixnas.experiments.nni.space import depth, pack, to_nni, unpack

NESTED = {
    "learning_rate": {"loguniform": [1e-3, 1e-2]},
    "steps": {"logint": [2, 64]},
    "strategy": {
        "choice": [
            "fixed",
            {
                "darts": {
                    "clip": {"uniform": [0.5, 2]},
                    "relaxation": {"choice": ["a", {"b": {"warmup": {"int": [1, 9]}}}]},
                }
            },
        ]
    },
}


@given(st.data())
def test_values_come_back_from_nnis_form(data: st.DataObject) -> None:
    parameters = read_hyperparameters(NESTED, "here")
    answers: dict[str, Any] = {}

    def ask(parameter: Any) -> Any:
        if hasattr(parameter, "options"):
            answer = data.draw(st.sampled_from([option.label for option in parameter.options]))
        elif parameter.whole:
            answer = data.draw(st.integers(parameter.low, parameter.high))
        else:
            answer = data.draw(st.floats(parameter.low, parameter.high))
        answers[parameter.name] = answer
        return answer

    assign(parameters, ask)
    packed = json.loads(json.dumps(pack(parameters, answers)))
    assert set(packed) == {"learning_rate", "steps", "strategy"}
    assert unpack(parameters, packed) == answers


def test_the_search_space_in_nnis_words() -> None:
    parameters = read_hyperparameters(NESTED, "here")
    space = to_nni(parameters)
    assert space["learning_rate"] == {"_type": "loguniform", "_value": [1e-3, 1e-2]}
    assert space["steps"] == {"_type": "qloguniform", "_value": [2, 64, 1]}
    fixed, darts = space["strategy"]["_value"]
    assert fixed == {"_name": "fixed"} and darts["_name"] == "darts"
    assert darts["clip"] == {"_type": "uniform", "_value": [0.5, 2.0]}
    inner = darts["relaxation"]["_value"][1]
    assert inner["warmup"] == {"_type": "randint", "_value": [1, 10]}
    assert depth(parameters) == 2
    assert unpack(
        parameters, {"learning_rate": 5.0, "steps": 64.4, "strategy": {"_name": "fixed"}}
    ) == {
        "learning_rate": 1e-2,
        "steps": 64,
        "strategy": "fixed",
    }
