from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from peml.__main__ import main
from tests.workbench import SMALL


@pytest.fixture(scope="session")
def trained(bench: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Runs of `peml train`, by model family; each is made once."""
    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in made:
            run = tmp_path_factory.mktemp(family) / "run"
            tasks = [str(bench / "mood"), str(bench / "order")]
            argv = ["train", "--model", str(bench / family), "--tasks", *tasks, *SMALL]
            argv += ["--space", "mlp", "--learning-rate", "0.02", "--warmup", "0"]
            assert main([*argv, "--out", str(run)]) == 0
            made[family] = run
        return made[family]

    return make
