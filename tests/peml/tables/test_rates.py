from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peml.methods.method import METHODS, RATE
from peml.tables.rates import scaled
from prefixnas.base.errors import UserError
from prefixnas.launch.plan import resolve_run

FACTORS = st.floats(0.01, 100).filter(lambda factor: factor != 1)


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


OWN_RATES = [name for name in METHODS.names() if METHODS.get(name).rate != RATE]


@pytest.mark.parametrize("method", OWN_RATES)
def test_gates_that_would_follow_another_rate_are_refused(method: str) -> None:
    before = values(method=method, space="default")
    with pytest.raises(UserError, match="gate_learning_rate"):
        scaled(before, 2)
    assert scaled(before, 1) == before
    for more in ({"gate_learning_rate": 1e-3}, {"learning_rate": 1e-3}, {"space": "none"}):
        after = scaled(values(**{"method": method, "space": "default", **more}), 2)
        assert after["learning_rate"] == 2 * (more.get("learning_rate") or METHODS.get(method).rate)
