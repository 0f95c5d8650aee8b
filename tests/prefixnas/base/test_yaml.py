"""The one reader of YAML: what it takes comes back equal, what is too much is refused at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from prefixnas.base.errors import UserError
from prefixnas.base.yaml import DEPTH, NODES, SIZE, load_yaml, read_yaml
from tests import ROOT

# PyYAML itself loses characters that end a line in Unicode alone.
TEXTS = st.text(st.characters(categories=["L", "N", "P", "S"]))
SCALARS = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | TEXTS | st.floats(-9, 9)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)
LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)
MERGED = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 10)
)
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 1000))


@given(VALUES)
def test_what_was_dumped_comes_back(value: object) -> None:
    assert load_yaml(yaml.safe_dump(value, allow_unicode=True), "f") == value


def test_what_people_use_is_allowed() -> None:
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n2: [*a, *a]\ntrue: yes\n"
    merged = {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}}
    assert load_yaml(text, "f") == {**merged, 2: [merged["a"]] * 2, True: True}
    assert load_yaml("", "f") is None


def test_dates_are_texts() -> None:
    text = "{a: 2020-01-01, b: 2020-99-99, c: 2020-01-01T10:00:00Z, d: =}"
    assert load_yaml(text, "f") == {
        "a": "2020-01-01",
        "b": "2020-99-99",
        "c": "2020-01-01T10:00:00Z",
        "d": "=",
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LAUGHS, f"more than {NODES:,} values"),
        (MERGED, f"more than {NODES:,} values"),
        (CHAIN, f"more than {DEPTH} lists"),
        ("- " * 500 + "x", f"line 1, column 101: more than {DEPTH} lists"),
        ("[" * 500 + "]" * 500, f"line 1, column 51: more than {DEPTH} lists"),
        ("{a: " * 500 + "}" * 500, f"more than {DEPTH} lists"),
        ("[" + "x," * (NODES + 1) + "]", f"more than {NODES:,} values"),
        ("#" * (SIZE + 1), f"more than {SIZE:,} characters"),
        ("a: &a [*a]", "line 1, column 8: alias 'a' refers to what it is in"),
        ("a: *b", "not valid YAML: found undefined alias"),
        ("a: " + "9" * 400, "line 1, column 4: a number of 400 characters"),
        ("a: " + "1:1" * 4000, "a number of"),
        ("a: 0b_", "'0b_' is no number"),
        ("a: !!python/name:os.system x", "line 1, column 4: the tag .*os.system' is not allowed"),
        ("a: !!binary aGk=", "the tag .*binary' is not allowed"),
        ("a: !!set {x, y}", "the tag .*set' is not allowed"),
        ("a: !!timestamp 2020-01-01", "the tag .*timestamp' is not allowed"),
        ("a: {b: 1, b: 2}", "line 1, column 11: not valid YAML: key 'b' occurs twice"),
        ("? [a, b]\n: 1", "line 1, column 3: a key must be a text or a number"),
        ("{[a, b]: 1}", "a key must be a text or a number"),
        ("a: 1\n--- \nb: 2", "not valid YAML"),
        ("a: \x07", "not valid YAML"),
    ],
)
def test_what_is_not_allowed_is_one_line_with_its_place(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        load_yaml(text, "f.yaml")
    assert str(refused.value).startswith("f.yaml:")
    assert "\n" not in str(refused.value)


def test_a_file_is_read_no_further_than_its_limit(tmp_path: Path) -> None:
    (tmp_path / "long.yaml").write_text("x" * (SIZE + 1))
    with pytest.raises(UserError, match=f"long.yaml: more than {SIZE:,} bytes"):
        read_yaml(tmp_path / "long.yaml")
    with pytest.raises(UserError, match=f"/dev/zero: more than {SIZE:,} bytes"):
        read_yaml(Path("/dev/zero"))


def test_nothing_else_reads_yaml() -> None:
    reading = ("yaml.safe_load", "yaml.load", "yaml.compose", "yaml.parse", "yaml.scan")
    found = {
        path.name
        for room in ("prefixnas", "peml", "strategies")
        for path in (ROOT / room).rglob("*.py")
        if any(call in path.read_text(encoding="utf-8") for call in reading)
    }
    assert found == set()
