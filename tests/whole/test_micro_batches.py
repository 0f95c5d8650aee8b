"""A run whose batches are computed in parts is the run of whole batches."""

from __future__ import annotations

from pathlib import Path

import pytest

from prefixnas.__main__ import main
from tests.workbench import events

STEPS = 20


def searched(folder: Path, *more: str) -> Path:
    """Search on the embedded model, all with its dropout, tasks of unequal sizes and weights."""
    argv = ["search", "--tasks", "embedded:sentiment", "embedded:boolean", "--gamma", "0.03"]
    argv += ["--train-limit", "150", "--eval-limit", "20", "--batch-size", "5"]
    argv += ["--steps", str(2 * STEPS), "--log-every", "1", "--baseline", "none"]
    assert main([*argv, "--out", str(folder), *more]) == 0
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return searched(tmp_path_factory.mktemp("whole") / "run")


@pytest.mark.parametrize("size", [1, 2])
def test_parts_of_batches_make_the_run_of_whole_batches(
    size: int, whole: Path, tmp_path: Path
) -> None:
    """20 steps of search and 20 of training: equal losses to 1e-5, and the same architecture."""
    parts = searched(tmp_path / "run", "--micro-batch-size", str(size))
    pairs = list(zip(events(whole), events(parts), strict=True))
    steps = [(a, b) for a, b in pairs if a["event"] == "step"]
    assert [a["phase"] for a, _ in steps] == ["search"] * STEPS + ["train"] * STEPS
    for a, b in steps:
        assert a["losses"] == pytest.approx(b["losses"], abs=1e-5)
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)
    for a, b in pairs:
        assert a["event"] == b["event"]
        if a["event"] in ("evaluation", "evidence", "architecture", "prune"):
            assert a == b
    found = [(run / "architecture.yaml").read_text() for run in (whole, parts)]
    assert found[0] == found[1]
