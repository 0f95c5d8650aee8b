"""The toy problem by its name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from prefixnas.run.objective import OBJECTIVES
from tests.prefixnas.compare.planned import ToyOptions


@pytest.fixture
def toy() -> Iterator[None]:
    before = dict(OBJECTIVES._registered)
    OBJECTIVES.register("toy")(ToyOptions)
    yield
    OBJECTIVES._registered = before
