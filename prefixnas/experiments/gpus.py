"""Which GPUs a worker of `prefixnas tune` needs: its own, or shares of them."""

from __future__ import annotations

import math
import os

from prefixnas.base.errors import UserError
from prefixnas.experiments.lease import Demand, Gpu, count_gpus

VISIBLE = "CUDA_VISIBLE_DEVICES"


def demand_of_worker(workers: int, each: int = 1) -> Demand:
    """Return what each of several workers leases; where no GPU is visible, none.

    Workers share GPUs evenly where there are more of them than GPUs.

    Args:
        workers: How many there are.
        each: Processes of a trial, each on a GPU of its own.

    Raises:
        UserError: More processes than GPUs.
    """
    usable = visible()
    if not usable:
        return Demand()
    if each > len(usable):
        raise UserError(
            f"key 'processes': {each} processes need a GPU each, and there are {len(usable)}; "
            f"start fewer, or hide the GPUs ({VISIBLE}=) to train on CPUs"
        )
    return Demand(each, math.ceil(workers * each / len(usable)), usable)


def visible() -> tuple[Gpu, ...]:
    """Return the GPUs that this process may use, as CUDA names them."""
    given = os.environ.get(VISIBLE)
    if given is None:
        return tuple(range(count_gpus()))
    names = [name.strip() for name in given.split(",")]
    hidden = next((at for at, name in enumerate(names) if name in ("", "-1")), len(names))
    return tuple(int(name) if name.isdecimal() else name for name in names[:hidden])
