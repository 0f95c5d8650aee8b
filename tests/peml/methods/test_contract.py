"""Every shipped method keeps the contract, on every family; each promise can be broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from peml.methods.method import METHODS, Method
from peml.testing import FAMILIES, MethodCheck
from prefixnas.testing import BrokenPromise
from prefixnas.testing.promise import promises_of
from tests.peml.methods.broken import BROKEN, Scheduled

OPTIONS: dict[str, dict[str, Any]] = {
    "moelora": {"experts": 2},
    "loramoe": {"experts": 4, "balance": 0.1},
    "mhr": {"splits": 2},
    "hyperformer": {"task_width": 8, "hidden": 8, "reduction": 4},
    "hyperprompt": {"prompt_length": 3, "bottleneck": 4, "task_width": 8, "hidden": 8},
    "mpt": {"prompt_length": 3},
    "mpt, distilled": {"prompt_length": 3, "distill": 0.5},
    "hyperprompt, base": {"prompt_length": 3, "bottleneck": 4, "tune_base": True},
    "unipelt": {"prompt_length": 3, "prefix_hidden": 8, "reduction": 4},
}
NAMES = list(dict.fromkeys([*METHODS.names(), *OPTIONS]))
"""All methods, and some with options that make them others."""


def make(name: str) -> Method:
    cls: Any = METHODS.get(name.split(",")[0])
    small = {"lora_rank": 4} if "lora_rank" in cls.__dataclass_fields__ else {}
    made: Method = cls(**small, **OPTIONS.get(name, {}))
    return made


# A family in turn for every method at every change, the others where all is tried.
UNSUPPORTED = {("unipelt", "llama"), ("unipelt", "gpt2")}  # its gates see the whole input
PAIRS = [
    pytest.param(name, family, marks=() if place == turn % len(FAMILIES) else pytest.mark.slow)
    for turn, name in enumerate(NAMES)
    for place, family in enumerate(FAMILIES)
    if (name, family) not in UNSUPPORTED
]


@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_it_keeps_its_promises(name: str, family: str) -> None:
    check = MethodCheck(lambda: make(name), family)
    for promise in promises_of(MethodCheck):
        getattr(check, promise)()


def test_a_method_that_asks_for_steps_where_nothing_trains_is_noticed() -> None:
    with pytest.raises(BrokenPromise, match=r"saved.*needs the number of steps"):
        MethodCheck(dataclass(frozen=True)(Scheduled), "llama").saved()


@pytest.mark.parametrize("promise", promises_of(MethodCheck))
def test_a_broken_promise_is_noticed(promise: str) -> None:
    broken: Callable[[], Method] = BROKEN[promise]
    with pytest.raises(BrokenPromise) as caught:
        getattr(MethodCheck(broken, "llama"), promise)()
    assert caught.value.promise == promise
