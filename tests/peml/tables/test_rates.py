from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peml.methods.method import METHODS
from peml.tables.rates import scaled
from prefixnas.launch.plan import resolve_run

FACTORS = st.floats(0.01, 100)


def values(**more: Any) -> dict[str, Any]:
    return resolve_run([("test", {"objective": "language-model", **more})])


@given(FACTORS)
def test_every_rate_of_the_weights_is_scaled_and_that_of_the_alphas_is_not(factor: float) -> None:
    before = values(method="poly", space="default", learning_rate=1e-3)
    after = scaled(before, factor)
    for name in ("learning_rate", "head_learning_rate", "router_learning_rate"):
        assert after[name] == pytest.approx(before[name] * factor)
    assert after["prefix_learning_rate"] == pytest.approx(1e-3 * factor)
    rest = {key for key in before if before[key] != after[key]}
    assert {key for key in rest if not key.endswith("learning_rate")} == set()
    assert after["alpha_learning_rate"] == before["alpha_learning_rate"]


@given(FACTORS)
def test_a_rate_that_is_left_open_is_the_methods_own(factor: float) -> None:
    after = scaled(values(method="lora"), factor)
    assert after["learning_rate"] in (None, METHODS.get("lora").rate * factor)
    concat = scaled(values(prefix_attention="concat"), factor)
    assert concat["prefix_learning_rate"] in (None, pytest.approx(3e-4 * factor))


def test_the_factor_one_leaves_a_configuration_as_it_is() -> None:
    before = values(method="dora")
    assert scaled(before, 1.0) == before
