from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from tests.workbench import TASKS, write_model, write_task


@pytest.fixture(scope="session", autouse=True)
def _contracts_in_memory(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Contracts write hundreds of checkpoints, each flushed to the disk; memory is faster."""
    tmp_path_factory.getbasetemp()  # pytest's own folders stay where they are
    if os.access("/dev/shm", os.W_OK):
        tempfile.tempdir = "/dev/shm"


@pytest.fixture(scope="session", autouse=True)
def _coarse_plots() -> Iterator[None]:
    """Reports are drawn hundreds of times; most of it is laying out labels that nobody reads."""
    save = Figure.savefig

    def save_coarsely(figure: Figure, *args: Any, **options: Any) -> None:
        figure.set_layout_engine("none")
        save(figure, *args, **{**options, "dpi": 30})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save_coarsely)
        yield


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny models llama, t5 and bert and the tasks mood and order."""
    folder = tmp_path_factory.mktemp("bench")
    for family in ("llama", "t5", "bert"):
        write_model(folder / family, family)
    for name, size in zip(TASKS, (24, 40), strict=True):
        write_task(folder / name, name, size)
    return folder
