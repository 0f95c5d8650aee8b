"""The rooms of PEML import one way; late imports and those for typing alone count, too."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

from tests import ROOT

ROOMS = ["embedded", "model", "tasks", "prefix", "lora", "batches", "answers"]
ROOMS += ["adapters", "objective", "commands"]
"""From the ground up."""


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_of(path): path for path in sorted((ROOT / "peml").rglob("*.py"))}


def imports(path: Path) -> set[str]:
    """Return the modules of PEML that a file imports, wherever it does so."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, path
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in FILES else str(node.module) for name in names}
    return found & set(FILES)


GRAPH = {module: imports(path) for module, path in FILES.items()}
INSIDE = {module: found for module, found in GRAPH.items() if module.count(".")}


def floor(module: str) -> int:
    """Return the number of a module's room; the package and `python -m peml` are above all."""
    room = module.split(".")[1] if "." in module else ""
    return ROOMS.index(room) if room in ROOMS else len(ROOMS)


def test_every_folder_and_file_is_a_room() -> None:
    found = {module.split(".")[1] for module in INSIDE}
    assert found == {*ROOMS, "__main__"}


def test_rooms_import_one_way() -> None:
    arrows = [(one, other) for one, found in GRAPH.items() for other in found]
    assert len(arrows) > 100
    assert [arrow for arrow in arrows if floor(arrow[0]) < floor(arrow[1])] == []


def test_no_files_import_each_other_in_a_circle() -> None:
    order = [*TopologicalSorter(GRAPH).static_order()]
    assert set(order) == set(FILES)
