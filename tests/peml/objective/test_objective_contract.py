"""The language-model objective keeps the contract of objectives, in every model family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from peml.objective.config import LanguageModelConfig
from prefixnas.run.objective import Objective
from prefixnas.testing import ObjectiveCheck
from prefixnas.testing.objectives import PROMISES


@pytest.fixture(params=["llama", "t5", "bert"])
def make(request: pytest.FixtureRequest, bench: Path) -> Callable[[], Objective]:
    config = LanguageModelConfig(
        model=str(bench / request.param),
        tasks=[str(bench / "mood"), str(bench / "order")],
        prefix_length=3,
        lora_rank=2,
        batch_size=4,
    )
    return lambda: config.build(20, 0)


@pytest.mark.parametrize("promise", PROMISES)
def test_promise(promise: str, make: Callable[[], Objective]) -> None:
    getattr(ObjectiveCheck(make, steps=4), promise)()
