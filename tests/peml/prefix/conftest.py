from __future__ import annotations

import pytest

from peml.prefix.kinds import ATTENTIONS


@pytest.fixture(params=sorted(ATTENTIONS))
def attention(request: pytest.FixtureRequest) -> str:
    """Every kind of prefix attention in turn."""
    name: str = request.param
    return name
