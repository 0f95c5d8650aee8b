from __future__ import annotations

import torch

from peml.model.device import isolated_random


def test_isolated_random_numbers_leave_the_stream_alone() -> None:
    state = torch.get_rng_state()
    with isolated_random(torch.device("cpu")):
        torch.rand(3)
    assert torch.equal(torch.get_rng_state(), state)
