"""A small study, without NNI."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from prefixnas.experiments.experiment import load_experiment
from prefixnas.experiments.study import Study
from tests.prefixnas.experiments.nni.study import EXPERIMENT


@pytest.fixture
def study(tmp_path: Path) -> Study:
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(EXPERIMENT))
    return Study.open(load_experiment(path), tmp_path / "study")


@pytest.fixture
def no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trials that are run in this process start no worker."""
    monkeypatch.setattr("tests.prefixnas.experiments.nni.trials.start_worker", lambda: None)
