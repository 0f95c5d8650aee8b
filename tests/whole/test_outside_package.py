"""A package of somebody else adds a strategy through an entry point, and nothing else is needed."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from tests import ROOT, forked

SOURCE = ROOT / "tests" / "data" / "outside_package"

USE = """
import json, sys, tempfile
from pathlib import Path
from prefixnas import Budget, Recipe, Run, load_space, search
from prefixnas.run.strategy import STRATEGIES
from prefixnas.testing import ToyObjective, check_strategy
assert "hill_climb" not in sys.modules
assert "hill-climb" in STRATEGIES.names()
hill_climb = STRATEGIES.get("hill-climb")
folder = Path(tempfile.mkdtemp())
run = Run(folder, load_space("default"), ToyObjective(), Budget(16, 8))
result = search(run, hill_climb(tries=3), Recipe())
print(json.dumps({"architecture": result.architecture.choices, "spent": run.spent}))
check_strategy(hill_climb(tries=1), spaces=[load_space("sensitivity")], other_process=False)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lay the package out as an installer does, without a network."""
    target = tmp_path_factory.mktemp("site")
    project = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]
    info = target / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    (target / "hill_climb.py").write_text((SOURCE / "hill_climb.py").read_text())
    return target


def test_strategy_of_an_outside_package(installed: Path) -> None:
    done = forked.run("-c", USE, PYTHONPATH=str(installed))
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[0])
    assert result["spent"] == 16
    assert set(result["architecture"]) == {
        f"layer{layer}/{key}" for layer in range(6) for key in ("activation", "dropout")
    }


def test_command_line_knows_the_strategy(installed: Path) -> None:
    shown = ["-m", "prefixnas", "strategies", "hill-climb"]
    done = forked.run(*shown, PYTHONPATH=str(installed))
    assert done.returncode == 0, done.stderr
    assert "Hill climbing" in done.stdout
    assert "neighbours to try" in done.stdout
