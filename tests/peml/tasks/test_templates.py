from __future__ import annotations

import pytest

from peml.tasks.fields import MissingField, lookup
from peml.tasks.templates import check_template, render

RECORD = {"a": "x", "n": 2.5, "none": None, "fields": {"options": ["p", "q"], "deep": {"k": 1}}}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{a}", "x"),
        ("{{{a}}}", "{x}"),
        ("{n:.2f}", "2.50"),
        ("{fields.options[1]} {fields[deep][k]}", "q 1"),
        ("{fields.options.0!r}", "'p'"),
        ("no field", "no field"),
    ],
)
def test_render(template: str, text: str) -> None:
    check_template(template)
    assert render(template, RECORD) == text


@pytest.mark.parametrize(
    ("template", "there"),
    [
        ("{b}", ("a", "n", "fields")),
        ("{none}", ("a", "n", "fields")),
        ("{fields.x}", ("options", "deep")),
        ("{fields.options[2]}", ("0", "1")),
    ],
)
def test_missing_fields(template: str, there: tuple[str, ...]) -> None:
    with pytest.raises(MissingField) as caught:
        render(template, RECORD)
    assert caught.value.present == there


@pytest.mark.parametrize("template", ["{a.__class__}", "{fields.items}", "{a[0]}"])
def test_attributes_are_out_of_reach(template: str) -> None:
    with pytest.raises(MissingField):
        render(template, RECORD)


def test_a_key_with_a_dot_is_found_whole() -> None:
    assert lookup({"a.b": 1}, "a.b") == 1


@pytest.mark.parametrize(
    "template", ["{a", "a}", "{}", "{0}", "{a:>10001}", "{a:.99999999999}", "{a:{b}}"]
)
def test_malformed(template: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        check_template(template)
