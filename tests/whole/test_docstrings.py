"""The examples of docstrings are run: what they show is what they print.

Each runs in an empty folder, with the names of its module at hand, and leaves no trace in the
registries. Examples of a module that imports NNI are for an environment that has it.
"""

from __future__ import annotations

import ast
import doctest
import importlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import ROOT
from tests.whole.test_docs import as_if_alone

FOLDERS = {"prefixnas": "prefixnas", "strategies": "prefixnas.strategies", "peml": "peml"}
"""Per folder the package that it is installed as."""

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Example:
    """The examples of one docstring.

    Attributes:
        file: Where it is.
        module: The module that is documented or holds what is.
        inside: Name of what is documented, within the module; empty for the module itself.
        text: The docstring.
        line: Its first line, from 0.
    """

    file: Path
    module: str
    inside: str
    text: str
    line: int

    def __str__(self) -> str:
        return f"{self.module}.{self.inside}".rstrip(".")


def modules() -> Iterator[tuple[Path, str]]:
    for folder, package in FOLDERS.items():
        for file in sorted((ROOT / folder).rglob("*.py")):
            parts = file.relative_to(ROOT / folder).with_suffix("").parts
            names = parts[:-1] if parts[-1] == "__init__" else parts
            yield file, ".".join((package, *names))


def documented(node: Documented, inside: tuple[str, ...]) -> Iterator[tuple[str, str, int]]:
    """Yield name, docstring and its line of everything in a module, a class or a function."""
    text = ast.get_docstring(node, clean=False)
    if text is not None:
        yield ".".join(inside), text, node.body[0].lineno - 1
    for child in node.body:
        if isinstance(child, Documented):
            name = getattr(child, "name", "")
            yield from documented(child, (*inside, name))


def examples() -> Iterator[Example]:
    for file, module in modules():
        source = file.read_text(encoding="utf-8")
        if ">>>" in source:
            for inside, text, line in documented(ast.parse(source), ()):
                if ">>>" in text:
                    yield Example(file, module, inside, text, line)


def needs_nni(file: Path) -> bool:
    return re.search(r"^ *(import|from) nni\b", file.read_text(), re.MULTILINE) is not None


@pytest.mark.parametrize("example", examples(), ids=str)
def test_an_example_prints_what_it_says(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if needs_nni(example.file):
        pytest.importorskip("nni")
    names = dict(vars(importlib.import_module(example.module)))
    parser, said = doctest.DocTestParser(), io.StringIO()
    test = parser.get_doctest(example.text, names, str(example), str(example.file), example.line)
    assert test.examples
    monkeypatch.chdir(tmp_path)
    with as_if_alone(tmp_path):
        doctest.DocTestRunner(optionflags=FLAGS).run(test, out=said.write)
    assert not said.getvalue(), said.getvalue()


def test_no_example_is_left_out() -> None:
    assert [str(example) for example in examples() if "+SKIP" in example.text] == []


def test_every_module_is_looked_at() -> None:
    """By the name that it is imported by: otherwise it would register its names once more."""
    names = {module for _, module in modules()}
    assert {"prefixnas.space.space", "prefixnas.strategies.darts", "peml"} <= names


def test_a_wrong_example_is_found() -> None:
    source = '"""M."""\nclass A:\n    """A.\n\n    >>> 1 + 1\n    3\n    """\n'
    ((_, text, line),) = [d for d in documented(ast.parse(source), ()) if ">>>" in d[1]]
    said = io.StringIO()
    test = doctest.DocTestParser().get_doctest(text, {}, "A", "a.py", line)
    doctest.DocTestRunner(optionflags=FLAGS).run(test, out=said.write)
    assert "line 5" in said.getvalue() and "Expected:\n    3" in said.getvalue()
