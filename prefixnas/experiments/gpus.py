"""Which GPUs a worker sees: each its own, or a shared one where there are more workers."""

from __future__ import annotations

import os

from prefixnas.experiments.nni.lease import count_gpus

VISIBLE = "CUDA_VISIBLE_DEVICES"


def share_of_gpus(number: int, workers: int) -> dict[str, str]:
    """Return the environment that shows a worker its GPU.

    Args:
        number: Which worker, from 0.
        workers: How many there are; a single one sees what there is.
    """
    if workers == 1:
        return {}
    given = os.environ.get(VISIBLE)
    if given is not None:
        visible = [name.strip() for name in given.split(",") if name.strip()]
    else:
        visible = [str(index) for index in range(count_gpus())]
    return {VISIBLE: visible[number % len(visible)]} if visible else {}
