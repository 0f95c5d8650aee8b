"""The notebook runs from its first cell to its last, and is kept without what it printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests import ROOT

NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"


def read() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_notebook_is_kept_without_outputs() -> None:
    cells = [cell for cell in read().cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("IPYTHONDIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "TMPDIR"):
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    place = {"metadata": {"path": str(tmp_path)}}
    done = NotebookClient(read(), timeout=None, kernel_name="python3", resources=place).execute()
    shown = [
        (kind, data)
        for cell in done.cells
        for output in cell.get("outputs", [])
        for kind, data in output.get("data", {}).items()
    ]
    tables = [data for kind, data in shown if kind == "text/html"]
    scores, answers = tables
    assert all(word in scores for word in ("LoRA alone", "trained child", "sentiment", "boolean"))
    assert all(word in answers for word in ("billing", "technical", "the sound is gone"))
    assert sum(kind == "image/png" for kind, _ in shown) == 2  # the architecture, the losses
