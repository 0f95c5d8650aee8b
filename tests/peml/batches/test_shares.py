"""A batch's shares cover it once, and draw what the whole draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from peml.batches.shares import Share, WholeDraws
from prefixnas.run.ranks import Ranks


@given(st.integers(1, 7), st.integers(1, 20), st.integers(0, 9))
def test_shares_cover_a_batch_once(count: int, total: int, place: int) -> None:
    shares = [Share.of(Ranks(rank, count), total, place) for rank in range(count)]
    counted = [row for s in shares if s.weight for row in range(total)[s.rows]]
    assert sorted(counted) == list(range(total))
    assert sum(share.weight for share in shares) == pytest.approx(1)
    sizes = [share.size if share.weight else 0 for share in shares]
    assert max(sizes) - min(sizes) <= 1
    assert all(share.size >= 1 for share in shares)
    values = torch.rand(total, dtype=torch.float64)
    parts = sum(values[share.rows].mean() * share.weight for share in shares)
    assert float(parts) == pytest.approx(float(values.mean()))


def attention(x: Tensor, **options: Any) -> Tensor:
    heads = x.view(len(x), 4, 5, 6)
    return F.scaled_dot_product_attention(heads, heads * 2, heads + 1, dropout_p=0.4, **options)


def grouped(x: Tensor) -> Tensor:
    heads = x.view(len(x), 4, 5, 6)
    pair = heads[:, :2]
    return F.scaled_dot_product_attention(heads, pair, pair, None, 0.4, enable_gqa=True)


def masked(x: Tensor) -> Tensor:
    return attention(x, attn_mask=torch.ones(5, 5, dtype=torch.bool).tril(), scale=0.3)


RANDOM: Mapping[str, Callable[[Tensor], Tensor]] = {
    "dropout": lambda x: F.dropout(x, 0.4),
    "module": torch.nn.Dropout(0.4),
    "flattened": lambda x: F.dropout(x.view(-1, 6), 0.4).view(len(x), -1),
    "attention": attention,
    "causal attention": lambda x: attention(x, is_causal=True),
    "masked attention": masked,
    "grouped attention": grouped,
    "attention without dropout": lambda x: F.scaled_dot_product_attention(x, x, x),
}


@pytest.mark.parametrize("name", RANDOM)
def test_draws_do_not_depend_on_how_a_batch_is_split(name: str) -> None:
    """Each rank gets its rows of what one process computes, and ends in the same random state."""
    function = RANDOM[name]
    batch = torch.rand(5, 20, 6, dtype=torch.float64)
    torch.manual_seed(3)
    whole = function(batch)
    state = torch.get_rng_state()
    for count in (2, 3):
        for rank in range(count):
            share = Share.of(Ranks(rank, count), len(batch), 1)
            torch.manual_seed(3)
            with WholeDraws(share):
                part = function(batch[share.rows])
            torch.testing.assert_close(part, whole[share.rows])
            assert torch.equal(torch.get_rng_state(), state)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
