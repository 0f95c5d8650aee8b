"""Leases of GPUs: none twice, and what can never be had is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from prefixnas.base.errors import UserError
from prefixnas.experiments.lease import COUNT, Demand, acquire
from tests.prefixnas.experiments.leases import leased


@pytest.mark.parametrize(
    ("count", "demand", "leases"),
    [
        (1, Demand(1), [(0,)]),
        (2, Demand(1), [(0,), (1,)]),
        (2, Demand(2), [(0, 1)]),
        (4, Demand(2), [(0, 1), (2, 3)]),
        (4, Demand(4), [(0, 1, 2, 3)]),
        (4, Demand(1, indices=(1, 3)), [(1,), (3,)]),
        (1, Demand(1, share=2), [(0,), (0,)]),
        (2, Demand(1, share=2), [(0,), (1,), (0,), (1,)]),
        (2, Demand(2, share=2), [(0, 1), (0, 1)]),
        (0, Demand(0), [(), (), ()]),
    ],
)
def test_every_gpu_is_leased_and_none_twice(
    tmp_path: Path, count: int, demand: Demand, leases: list[tuple[int, ...]]
) -> None:
    found = [leased(tmp_path, demand, count) for _ in range(len(leases))]
    assert sorted(map(str, found)) == sorted(map(str, leases))
    if demand.gpus:
        assert leased(tmp_path, demand, count) is None


def test_a_whole_gpu_and_a_share_of_it_exclude_each_other(tmp_path: Path) -> None:
    assert leased(tmp_path, Demand(1, share=2), 1) == (0,)
    assert leased(tmp_path, Demand(1), 1) is None
    other = tmp_path / "other"
    assert leased(other, Demand(1), 1) == (0,)
    assert leased(other, Demand(1, share=2), 1) is None


def test_shares_of_different_sizes_exclude_each_other(tmp_path: Path) -> None:
    for share, others in ((2, (3, 4)), (3, (2, 4))):
        folder = tmp_path / str(share)
        assert leased(folder, Demand(1, share=share), 2) == (0,)
        assert [leased(folder, Demand(1, share=other), 2) for other in others] == [(1,), None]
        assert leased(folder, Demand(1, share=share), 2) == (0,)


def test_a_demand_that_can_never_be_met_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(COUNT, "2")
    with pytest.raises(UserError, match="wants 3 GPUs and 2 can be had"):
        acquire(tmp_path, Demand(3))
    with pytest.raises(UserError, match="no GPU 5"):
        acquire(tmp_path, Demand(1, indices=(5,)))
