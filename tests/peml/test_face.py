"""The names that `import peml` offers."""

from __future__ import annotations

import tomllib

import pytest

import peml
from tests import ROOT


def test_the_names_are_those_of_the_documentation() -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    assert all(f"| `peml.{name}` |" in page for name in peml.__all__)
    assert page.count("| `peml.") == len(peml.__all__) == 9


@pytest.mark.parametrize("name", sorted(set(peml.__all__) - {"__version__"}))
def test_every_name_is_documented_with_an_example(name: str) -> None:
    item = getattr(peml, name)
    assert item is getattr(peml, name)
    assert "Example:\n" in item.__doc__ and ">>> " in item.__doc__


def test_the_version_is_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert peml.__version__ == project["version"]


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="laod"):
        _ = peml.laod  # type: ignore[attr-defined]
