"""Which GPUs a worker sees: its own, or shared ones where there are more workers than GPUs."""

from __future__ import annotations

import os

from prefixnas.experiments.lease import count_gpus

VISIBLE = "CUDA_VISIBLE_DEVICES"


def share_of_gpus(number: int, workers: int, each: int = 1) -> dict[str, str]:
    """Return the environment that shows a worker its GPUs.

    Args:
        number: Which worker, from 0.
        workers: How many there are; a single one sees what there is.
        each: Processes of a trial, each on a GPU.
    """
    if workers == 1:
        return {}
    given = os.environ.get(VISIBLE)
    if given is not None:
        visible = [name.strip() for name in given.split(",") if name.strip()]
    else:
        visible = [str(index) for index in range(count_gpus())]
    if not visible:
        return {}
    places = range(number * each, (number + 1) * each)
    mine = dict.fromkeys(visible[place % len(visible)] for place in places)
    return {VISIBLE: ",".join(mine)}
