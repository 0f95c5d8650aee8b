from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import plots
from tests.summary import Summary
from tests.workbench import TASKS, write_model, write_task

MEMORY = Path("/dev/shm")

# A busy machine makes no test fail.
settings.register_profile("no clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no clock")


def pytest_configure(config: pytest.Config) -> None:
    """Tests write tens of thousands of small files, each flushed to the disk; memory is faster."""
    config.pluginmanager.register(Summary(), "summary of what was not run")
    room = os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 2**30
    if room and "TMPDIR" not in os.environ:
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with whole commands, which take longest: then all processes end at the same time."""
    items.sort(key=lambda item: item.path.parent.name != "whole")


def pytest_collection_finish() -> None:
    """What was imported and collected stays: the garbage collector need not look at it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _plots_left_out() -> Iterator[None]:
    with plots.left_out():
        yield


@pytest.fixture(scope="module")
def rendered() -> Iterator[None]:
    """Figures are drawn; see `tests.plots`."""
    with plots.rendered():
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
