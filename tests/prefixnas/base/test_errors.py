"""Messages: one line, as long as can be read, with nothing in it that a terminal obeys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefixnas.base.console import guarded
from prefixnas.base.errors import (
    LINE,
    VALUE,
    UserError,
    brief,
    first_line,
    one_line,
    unknown,
    visible,
)


@given(st.text(max_size=1000))
def test_a_message_is_one_printable_line(text: str) -> None:
    line = one_line(text)
    assert len(line) <= LINE
    assert line.isprintable()


@given(st.text(alphabet=st.sampled_from("ab \n\r\t")))
def test_an_error_of_another_library_is_told_in_a_line_whatever_it_says(text: str) -> None:
    line = first_line(RuntimeError(text))
    assert line == (text.strip().splitlines() or ["RuntimeError"])[0].strip()


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "S"])))
def test_what_can_be_printed_stays(text: str) -> None:
    assert visible(text) == text
    assert one_line(text[:LINE]) == text[:LINE]


def test_a_long_message_keeps_its_beginning_and_its_end() -> None:
    line = one_line("f.yaml: key 'x': " + "y" * 1000 + "; add --resume")
    assert line.startswith("f.yaml: key 'x': y")
    assert line.endswith("y; add --resume")


@pytest.mark.parametrize("value", [{"a": [1] * 1000}, "x" * 1000, [10**5000]])
def test_a_value_is_cut(value: object) -> None:
    assert len(brief(value)) <= VALUE


def test_a_short_value_is_shown_as_it_is() -> None:
    assert brief({"a": [1, 2.5, None]}) == "{'a': [1, 2.5, None]}"


def test_of_many_names_the_first_and_the_nearest_are_named() -> None:
    error = unknown("key", "key77x", [f"key{number}" for number in range(100)], "f.yaml")
    assert str(error).startswith("f.yaml: unknown key 'key77x': did you mean 'key77'? (allowed: ")
    assert str(error).endswith("more)")
    assert len(str(error)) < LINE
    assert str(unknown("key", "a", ["x", "y"])) == "unknown key 'a' (allowed: x, y)"


def test_what_a_command_refuses_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(argv: object) -> int:
        raise UserError("task '\x1b[2Jmood'\nis\u202e unknown: " + "x" * 1000)

    assert guarded(refuse, []) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: task '\\x1b[2Jmood' is\\u202e unknown: x")
    assert printed.count("\n") == 1
    assert len(printed) < LINE + 10
