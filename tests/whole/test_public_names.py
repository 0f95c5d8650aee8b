"""PEML and the shipped strategies are users of prefixnas: they take public names alone."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import prefixnas
from tests import ROOT

FILES = sorted(file for folder in ("peml", "strategies") for file in (ROOT / folder).rglob("*.py"))


def public_modules() -> set[str]:
    """Return the modules that the documentation calls public."""
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    section = page.partition("## Public names\n")[2].partition("\n## ")[0]
    return set(re.findall(r"`(prefixnas(?:\.\w+)+)`", section)) - {"prefixnas.__all__"}


def taken(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield (module, name) of everything that a file imports from prefixnas."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((a.name, "") for a in node.names if a.name.split(".")[0] == "prefixnas")
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "prefixnas":
            yield from ((str(node.module), alias.name) for alias in node.names)


def private_uses(tree: ast.AST) -> list[str]:
    """Return attributes with an underscore that are taken of something imported from prefixnas."""
    names = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "prefixnas"
        for alias in node.names
    } | {"prefixnas"}
    return [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and ast.unparse(node.value).split(".")[0].split("(")[0] in names
    ]


def faults(source: str) -> list[str]:
    tree, modules = ast.parse(source), public_modules()
    wrong = private_uses(tree)
    for module, name in taken(tree):
        whole = f"{module}.{name}" in modules
        named = name in prefixnas.__all__ if module == "prefixnas" else module in modules
        allowed = whole or named
        if not allowed or name.startswith("_"):
            wrong.append(f"{module}: {name}")
    return wrong


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_only_public_names_are_used(file: Path) -> None:
    assert faults(file.read_text(encoding="utf-8")) == []


def test_something_is_used() -> None:
    found = {pair for file in FILES for pair in taken(ast.parse(file.read_text("utf-8")))}
    assert ("prefixnas.base.errors", "UserError") in found


@pytest.mark.parametrize(
    "source",
    [
        "from prefixnas.network.mixture import Mixture",
        "from prefixnas.network.supernet import _collapse",
        "from prefixnas import _PUBLIC",
        "import prefixnas.run.run",
        "from prefixnas.network.supernet import Supernet\nSupernet._weights(net, True)",
        "def late():\n    from prefixnas.run.run import Loop",
    ],
)
def test_a_private_name_is_found(source: str) -> None:
    assert faults(source)


def test_public_modules_exist_and_are_documented() -> None:
    for name in public_modules():
        assert importlib.import_module(name).__doc__, name
