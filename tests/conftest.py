from __future__ import annotations

from pathlib import Path

import pytest

from tests.workbench import TASKS, write_model, write_task


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny models llama, t5 and bert and the tasks mood and order."""
    folder = tmp_path_factory.mktemp("bench")
    for family in ("llama", "t5", "bert"):
        write_model(folder / family, family)
    for name, size in zip(TASKS, (24, 40), strict=True):
        write_task(folder / name, name, size)
    return folder
