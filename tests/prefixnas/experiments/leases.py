"""A lease of GPUs, taken at once or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from prefixnas.experiments.lease import COUNT, Demand, acquire


def leased(folder: Path, demand: Demand, count: int) -> tuple[int, ...] | None:
    """Take a lease if one can be had at once, and keep it."""
    tries = iter([False, True])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(COUNT, str(count))
        lease = acquire(folder, demand, wait=0, give_up=lambda: next(tries))
    return None if lease is None else lease.gpus
