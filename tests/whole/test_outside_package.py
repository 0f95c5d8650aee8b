"""A package of somebody else adds by an entry point, and nothing else is needed."""

from __future__ import annotations

import csv
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests import ROOT, forked
from tests.peml.tables.files import small, write

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


def lay_out(target: Path, project: Mapping[str, Any], modules: Mapping[str, str]) -> Path:
    """Lay a package out as an installer does, without a network.

    Args:
        target: Where.
        project: What its `pyproject.toml` says.
        modules: Its modules' text by name.
    """
    info = target / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    for name, text in modules.items():
        (target / f"{name}.py").write_text(text)
    return target


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]
    modules = {"hill_climb": (SOURCE / "hill_climb.py").read_text()}
    return lay_out(tmp_path_factory.mktemp("site"), project, modules)


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


def shown(page: str, file: str) -> str:
    """Return a file as a page of the docs shows it."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return text.partition(f"```python\n# {file}\n")[2].partition("```")[0]


def test_a_method_of_an_outside_package_is_a_row_of_a_table(bench: Path, tmp_path: Path) -> None:
    """The one that docs/extending.md shows; it is found by its entry point alone."""
    source = shown("extending.md", "private_lora.py")
    assert 0 < len(source.splitlines()) < 40
    source = source.replace('@register_method("private-lora")\n', "")
    points = {"peml.methods": {"private-lora": "private_lora:PrivateLora"}}
    project = {"name": "private-lora", "version": "1.0", "entry-points": points}
    site = lay_out(tmp_path / "site", project, {"private_lora": source})
    rows = {"LoRA": {}, "private": {"method": "private-lora", "lora_rank": 3}}
    file = write(tmp_path / "table.yaml", small(bench, rows=rows, seeds=[0], rates=[1], paper={}))
    out = tmp_path / "out"
    done = forked.run("-m", "peml", "table", str(file), "--out", str(out), PYTHONPATH=str(site))
    assert done.returncode == 0, done.stderr
    with (out / "table.csv").open() as stream:
        lora, private = csv.DictReader(stream)
    assert (lora["row"], private["row"]) == ("LoRA", "private")
    assert 0 <= float(private["mood"]) <= 1
    written = 2 * (32 + 16 + 16 + 32)  # by the queries, keys, values and outputs of two layers
    assert float(private["weights"]) - float(private["weights_in_use"]) == 3 * written
