"""Two processes that share the batches of a method compute what one does."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from prefixnas.base.tensors import read_tensors
from prefixnas.launch.processes import launch
from tests.peml.methods.in_ranks import main, splitting


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(["mtl-lora", "poly"], id="two"),
        pytest.param(splitting(), id="all", marks=pytest.mark.slow),
    ],
)
def test_two_processes_equal_one(names: list[str], bench: Path, tmp_path: Path) -> None:
    """With dropout, draws of a router, odd shares and empty ones."""
    arguments = [str(bench), str(tmp_path / "two"), *names]
    launch([sys.executable, "-m", "tests.peml.methods.in_ranks", *arguments], 2, lambda: None)
    main([str(bench), str(tmp_path / "one"), *names])
    one, two = (read_tensors(tmp_path / each) for each in ("one", "two"))
    assert one.keys() == two.keys() and {key.split("/")[0] for key in one} == set(names)
    apart = {key: float((one[key] - two[key]).abs().max()) for key in one}
    assert {key: far for key, far in apart.items() if far > 1e-5} == {}
    moved = [key for key in one if key.endswith("losses") and len(set(one[key][:, 0].tolist())) > 1]
    assert len(moved) == len(names) and all(map(torch.isfinite, (t.sum() for t in one.values())))
