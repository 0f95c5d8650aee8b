"""Architectures: frozen, hashable, YAML both ways."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from prefixnas.base.errors import UserError
from prefixnas.space.architecture import Architecture

CHOICES = {"layer0/f": "relu", "layer1/f": "dropout(0.1)"}


def test_equal_choices_are_one_key_in_any_order() -> None:
    one, other = Architecture(CHOICES, "s"), Architecture(dict(reversed(CHOICES.items())), "s")
    assert one == other
    assert hash(one) == hash(other)
    assert one != Architecture(CHOICES, "t")
    assert one != Architecture({**CHOICES, "layer0/f": "tanh"}, "s")


def test_frozen_and_detached_from_its_source() -> None:
    source = dict(CHOICES)
    architecture = Architecture(source, "s")
    source["layer0/f"] = "tanh"
    architecture.choices["layer0/f"] = "tanh"
    assert architecture["layer0/f"] == "relu"
    with pytest.raises(AttributeError, match="frozen"):
        architecture.space = "t"


def test_copies_are_equal() -> None:
    architecture = Architecture(CHOICES, "s")
    assert copy.copy(architecture) == copy.deepcopy(architecture) == architecture


def test_file_and_back(tmp_path: Path) -> None:
    architecture = Architecture(CHOICES, "s")
    architecture.save(tmp_path / "a.yaml")
    assert Architecture.load(tmp_path / "a.yaml") == architecture
    assert [path.name for path in tmp_path.iterdir()] == ["a.yaml"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1]", "expected a mapping"),
        ("space: s", "expected a mapping"),
        ("space: 3\nchoices: {}", "expected a mapping"),
        ("space: s\nchoices: {a: b}\nchoics: {}", "unknown key 'choics': did you mean 'choices'"),
        ("space: [", "not valid YAML"),
        ("space: s\nchoices: {a: b, a: c}", "occurs twice"),
    ],
)
def test_mistakes(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Architecture.from_yaml(text)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such architecture file"):
        Architecture.load(tmp_path / "none.yaml")
