"""Architectures as numbers, for predictors."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from prefixnas.space.architecture import Architecture
from prefixnas.space.open_space import OpenSpace


def encode(space: OpenSpace, architectures: Iterable[Architecture]) -> NDArray[np.float64]:
    """Return one row per architecture: different architectures have different rows.

    Every open decision has a column per option, 1 where that option is taken, and one that is 1
    where the decision does not count, so that the squared distance of two rows is twice the number
    of decisions in which they differ.

    Args:
        space: What is open of the space.
        architectures: Architectures of it.

    Returns:
        `[architectures, sum over open decisions of (options + 1)]`.
    """
    columns = [(d.name, option) for d in space.decisions for option in (*d.options, None)]
    rows = [[item.get(name) == option for name, option in columns] for item in architectures]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(columns))
