"""Tables: the same cells in every form, and no text that is obeyed instead of shown."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console
from rich.text import Text

from prefixnas.report.grid import Cell, Fitting, Grid, Number, Span, facts, number
from prefixnas.report.grid import in_markdown as in_markdown_text

Words = list[list[str]]

NASTY = [
    "[red]x[/]",
    "<b>x</b>",
    "a|b",
    r"a\|b",
    "$x_1$",
    "**x**",
    "_x_",
    "`x`",
    "&lt;",
    "~~x~~",
    "__x__",
]
NASTY += ["[a](b)", "![a](b)", "<http://a.b>", "&#60;", "\\", r"\\|", "<!-- x -->", "< 0.1", "~ 1"]
NASTY += ["__x__", "a_b_"]
texts = st.text(st.characters(exclude_categories=["Cs", "Co", "Cn"])) | st.sampled_from(NASTY)
texts |= st.lists(st.sampled_from("\\`*_|$[]<>&~!#-+()\"' a"), max_size=9).map("".join)


def words(text: str) -> str:
    """Return a text as a page shows it: runs of white space are one space."""
    return " ".join(re.sub("[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", text).split())


class Page(HTMLParser):
    """Collects the cells of a table with the tags around their texts, row by row."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: Words = []
        self.tags: list[str] = []
        self.bold: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self.tags.append(f"/{tag}")

    def handle_data(self, data: str) -> None:
        self.rows[-1][-1] += data
        if self.tags[-1] in ("b", "strong"):
            self.bold.append(data)


def in_html(grid: Grid) -> Page:
    return Page(grid.html())


def in_markdown(grid: Grid) -> Page:
    reader = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    return Page(reader.render(grid.markdown()).replace("\n", ""))


def on_terminal(grid: Grid) -> Words:
    table = grid.rich()
    columns = [[column.header, *column.cells] for column in table.columns]
    assert all(isinstance(cell, Text) for column in columns for cell in column)
    return [list(map(str, row)) for row in zip(*columns, strict=True)]


def printed(grid: Grid, width: int = 80, one_line: bool = False) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(grid.rich(one_line) if one_line else grid)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def shown(rows: Words) -> Words:
    return [list(map(words, row)) for row in rows]


GRID = Grid(
    ["task", Number("a"), "chosen"],
    [
        ["sst2", Span("0.500", "bold"), [Span("relu 0.9", "bold"), Span("tanh pruned", "dim")]],
        ["average", "-", [Span("x", "red")]],
    ],
    breaks=[1],
)


def test_all_forms_show_the_same_cells() -> None:
    head, first, second = ["task", "a", "chosen"], ["sst2", "0.500"], ["average", "-", "x"]
    assert on_terminal(GRID) == [head, [*first, "relu 0.9  tanh pruned"], second]
    assert in_html(GRID).rows == [head, [*first, "relu 0.9, tanh pruned"], second]
    assert in_markdown(GRID).rows == [head, [*first, "relu 0.9, tanh pruned"], second]


def test_bold_is_bold_in_every_form() -> None:
    assert in_html(GRID).bold == in_markdown(GRID).bold == ["0.500", "relu 0.9"]
    console = Console(file=io.StringIO(), force_terminal=True, color_system="standard", width=80)
    console.print(GRID)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert re.findall("\x1b\\[1m(.*?)\x1b", said)[-2:] == ["0.500", "relu 0.9"]
    assert "\x1b[2mtanh pruned" in said and "<span class='dim'>tanh pruned</span>" in GRID.html()


def test_numbers_stand_on_the_right_and_sections_are_apart() -> None:
    lines = printed(GRID).splitlines()
    assert lines[3].index("0.500") + 5 == lines[5].index("-") + 1 and not lines[4].strip()
    html = GRID.html()
    assert html.count("class='number'") == 3 and html.count("<tr class='section'>") == 1
    assert "| --- | ---: | --- |" in GRID.markdown()


@given(st.lists(st.tuples(texts, texts, texts), min_size=1, max_size=3), st.booleans())
def test_any_text_survives(rows: list[tuple[str, str, str]], bold: bool) -> None:
    head, *others = rows
    style = "bold" if bold else ""
    cells: list[Sequence[Cell]] = [[a, Span(b, style), [Span(c, style)]] for a, b, c in others]
    grid = Grid(["name", *head[1:]], cells)
    wanted = shown([["name", *head[1:]], *map(list, others)])
    assert shown(on_terminal(grid)) == wanted
    if others:
        html = in_html(grid)
        assert shown(html.rows) == wanted
        assert {tag.strip("/") for tag in html.tags} <= {*("div", "table", "thead", "tr"), *TAGS}
    markdown = in_markdown(grid)
    assert shown(markdown.rows) == wanted
    assert {tag.strip("/") for tag in markdown.tags} <= {*("table", "thead", "tbody", "tr"), *TAGS}


TAGS = ("th", "td", "b", "strong")


@pytest.mark.parametrize("text", ["[bold]x[/bold]", ":smile:", "0.5 true 'a' http://a.b"])
def test_a_terminal_obeys_and_colours_no_text(text: str) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    console.print(Grid(["", ""], [[text, "y"]]))
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert text in said and "\x1b" not in said


def test_a_name_sends_no_command_to_the_terminal() -> None:
    assert "\x1b" not in printed(Grid(["", ""], [["\x1b[2J\x1b]0;title\x07x", "y\r\nz"]]))


@given(st.lists(st.text("ab c", min_size=1, max_size=90), min_size=1), st.integers(30, 90))
def test_one_line_a_row_on_a_terminal_of_any_width(names: list[str], width: int) -> None:
    grid = Grid(["name", Number("score")], [[name, "0.500"] for name in names])
    lines = printed(grid, width, one_line=True).splitlines()
    assert len(lines) == len(names) + 4
    assert all("0.500" in line for line in lines[3:-1])


def test_what_does_not_fit_takes_more_lines_and_nothing_is_lost() -> None:
    name = "word_in_context_of_a_very_long_name"
    text = printed(Grid(["name", Number("score")], [[name, "0.500"]]), 24)
    assert "…" not in text and name in "".join(text.split()).replace("0.500", "")


def test_a_table_without_rows_is_no_html() -> None:
    assert Grid(["a"], []).html() == ""
    assert facts([]).html() == ""


def test_what_markdown_leaves_alone_is_left_alone() -> None:
    for text in ("learning_rate=0.1 (n=3)", "< -0.1", "~ +0.003 (-1.2 %)", "> 3"):
        assert in_markdown_text(text) == text


def test_facts_have_no_headings() -> None:
    grid = facts([("seed", "3"), ("seed", "4")])
    assert printed(grid).split() == ["seed", "3", "seed", "4"]
    assert in_html(grid).rows == [["seed", "3"], ["seed", "4"]]


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (number(None), "-"),
        (number(0.51249), "0.512"),
        (number(1234.5, ",.0f"), "1,234"),
        (number(0.5, ".2f", 0.125), "0.50 ± 0.12"),
        (number(0.5, ".2f", None), "0.50"),
    ],
)
def test_numbers_as_cells_show_them(said: str, wanted: str) -> None:
    assert said == wanted


HEADED = Grid(
    ["task", Number("argmax child"), Number("LoRA alone")], [["word_in_context"] + ["0.1"] * 2]
)


def test_a_heading_takes_lines_before_anything_is_broken() -> None:
    assert "argmax child" in printed(HEADED, 60)
    narrow = printed(HEADED, 36)
    assert "argmax child" not in narrow and "word_in_context" in narrow
    assert {"argmax", "child", "LoRA", "alone", "0.1"} <= set(narrow.split())
    assert max(map(len, narrow.splitlines())) <= 36


def test_what_a_row_is_about_is_broken_last() -> None:
    text = "a name of a task that is long"
    long = Grid(["", "text", Number("n")], [[text, "much to be said " * 9, "0.125"]])
    lines = printed(long, 60).splitlines()
    assert any(text in line for line in lines)


def test_the_first_form_that_fits_is_shown() -> None:
    other = Grid(["task", Number("n")], [["word_in_context", "0.1"]])
    forms = Fitting([HEADED, other])
    assert forms.rows == other.rows

    def said(width: int) -> str:
        console = Console(file=io.StringIO(), width=width)
        console.print(forms)
        return str(console.file.getvalue())  # type: ignore[attr-defined]

    assert said(60) == printed(HEADED, 60)
    assert said(30) == printed(other, 30)
    assert said(12) == printed(other, 12)


MODELS = ["untouched", "LoRA alone", "LoRA r=63", "mixture", "argmax child", "trained child"]
NAMES = ["customer_support_ticket_routing_2026_q1_english", "glue/sst2", "a b c"]


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_names_and_numbers_are_broken_nowhere(width: int) -> None:
    """As in a pipe of 80 columns: a name that leaves no room stands above its numbers."""
    rows = [[name, *(f"0.{n}50" for n in range(6))] for name in NAMES]
    lines = printed(Grid(["task", *map(Number, MODELS)], rows, [2]), width).splitlines()
    for name in NAMES:
        at = next(index for index, line in enumerate(lines) if name in line)
        shown = f"{lines[at]} {lines[at + 1]}".replace(name, "").split()
        assert shown[:6] == [f"0.{n}50" for n in range(6)]
    assert max(map(len, map(str.rstrip, lines))) <= width
    assert {word for title in MODELS for word in title.split()} <= set(" ".join(lines).split())
