"""Runs that were written by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.prefixnas.recorded import ending, events, write


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    return write(tmp_path / "run", [*events(), *ending()], finished=True)


@pytest.fixture
def interrupted(tmp_path: Path) -> Path:
    return write(tmp_path / "run", events())
