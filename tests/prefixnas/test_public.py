"""The public names, and that importing the packages costs nothing."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import prefixnas
from tests import ROOT


@pytest.mark.parametrize(
    "package", ["prefixnas", "peml", "prefixnas.base.errors", "prefixnas.base.registry"]
)
def test_import_loads_nothing_heavy(package: str) -> None:
    heavy = ("torch", "transformers", "peft", "accelerate", "datasets", "matplotlib", "networkx")
    code = f"import {package}, sys; print(*[m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("name", sorted({*prefixnas.__all__} - {"__version__"}))
def test_every_public_name_is_documented(name: str) -> None:
    item = getattr(prefixnas, name)
    assert name in dir(prefixnas)
    assert item is getattr(prefixnas, name)
    if not name.startswith("register_"):
        assert item.__doc__


@pytest.mark.parametrize("face", ["prefixnas", "prefixnas.oneshot", "prefixnas.strategies", "peml"])
def test_every_public_name_is_used_by_a_page_or_an_example(face: str) -> None:
    files = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*.py")]
    words = {word for file in files for word in re.findall(r"\w+", file.read_text("utf-8"))}
    assert set(importlib.import_module(face).__all__) - words == set()


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Serach"):
        _ = prefixnas.Serach  # type: ignore[attr-defined]


def test_every_folder_with_code_is_packaged_and_no_general_name_is() -> None:
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = setup["package-dir"]

    def place(package: str) -> Path:
        whole = {name: ROOT / folder for name, folder in folders.items()}
        if package in whole:
            return whole[package]
        parent, _, last = package.rpartition(".")
        return place(parent) / last

    packaged = {place(package).resolve() for package in setup["packages"]}
    with_code = {
        path.parent.resolve()
        for root in ("prefixnas", "peml", "strategies", "search_spaces")
        for path in (ROOT / root).rglob("__init__.py")
    }
    assert packaged == with_code
    assert {package.partition(".")[0] for package in setup["packages"]} == {"prefixnas", "peml"}
