"""A table: its content is made once, and shown on a terminal, in HTML or in Markdown.

Every text is shown as it is: a grid escapes it for each form, and nobody else has to.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from html import escape

from rich.box import SIMPLE
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text


class Number(str):
    """The heading of a column of numbers: they are aligned to the right."""


@dataclass(frozen=True)
class Span:
    """A part of a cell; its style is "bold", "dim", or a colour, which a terminal alone shows."""

    text: str
    style: str = ""


WORD = 20
"""Characters of a word that a column of text keeps on one line."""

Cell = str | Span | Sequence[Span]


@dataclass(frozen=True)
class Grid:
    """A table.

    Attributes:
        head: The headings; if all are empty, there is no line of them.
        rows: A cell for each heading; the first one says what the row is about.
        breaks: Places of the rows that begin a section.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    breaks: Collection[int] = ()

    def rich(self, one_line: bool = False, stacked: bool = False, whole: bool = False) -> Table:
        """Return the table for a terminal.

        Args:
            one_line: Whether what does not fit into a cell is cut off, or takes more lines.
            stacked: Whether headings of numbers have a line for each word.
            whole: Whether what a row is about, and each number, stay on one line.
        """
        table = Table.grid(padding=(0, 2))
        if any(self.head):
            table = Table(box=SIMPLE, header_style="bold", pad_edge=False)
        for place, title in enumerate(self.head):
            heading = _text(title, one_line)
            if stacked and isinstance(title, Number):
                heading = Text("\n".join(heading.plain.split()))
            kept = whole and (not place or isinstance(title, Number))
            table.add_column(heading, overflow="fold", no_wrap=kept)
            table.columns[-1].justify = "right" if isinstance(title, Number) else "left"
        for index, row in enumerate(self.rows):
            if index in self.breaks:
                table.add_section()
            table.add_row(*(_text(cell, one_line) for cell in row))
        return table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        least = [self._least(place) for place in range(len(self.head))]
        room = options.max_width - 3 * len(least) - 1
        if self.fits(console, options):
            yield self.rich()
        elif sum(least) <= room:
            yield self.rich(stacked=True, whole=True)
        elif self._of_numbers and sum(least[1:]) + 2 * len(least) <= options.max_width:
            yield from self._under_names(least[1:])
        else:
            yield self.rich(stacked=True)

    @property
    def _of_numbers(self) -> bool:
        return all(isinstance(title, Number) for title in self.head[1:])

    def _least(self, place: int) -> int:
        """Return the characters that a column needs: its names and numbers stay whole."""
        cells = [_text(row[place], False).plain for row in self.rows]
        title = self.head[place]
        if place and not isinstance(title, Number):
            cells = [word[:WORD] for cell in cells for word in cell.split()]
        return max(map(len, [*cells, *title.split()]), default=0)

    def _under_names(self, widths: Sequence[int]) -> RenderResult:
        """Yield the table with what a row is about on a line of its own, above its numbers."""

        def line(cells: Sequence[Cell], style: str = "") -> RenderableType:
            table = Table.grid()
            for width in widths:
                table.add_column(width=width + 2, justify="right", overflow="fold")
            table.add_row(*(_text(cell, False) for cell in cells), style=style)
            return Padding(table, (0, 0, 0, 1), expand=False)

        yield Text(f"\n {self.head[0]}", "bold")
        yield line(["\n".join(title.split()) for title in self.head[1:]], "bold")
        yield Text(f" {'─' * (sum(widths) + 2 * len(widths))}")
        for index, row in enumerate(self.rows):
            if index in self.breaks:
                yield Text()
            yield Text(" ").append_text(_text(row[0], False))
            yield line(row[1:])
        yield Text()

    def fits(self, console: Console, options: ConsoleOptions) -> bool:
        """Tell whether no cell and no heading needs a second line."""
        endless = options.update(width=1 << 16)
        return Measurement.get(console, endless, self.rich()).maximum <= options.max_width

    def html(self) -> str:
        """Return the table as HTML; "" if it has no rows."""
        titles = [_html("th scope='col'", title, title) for title in self.head]
        lines = [f"<thead><tr>{''.join(titles)}</tr></thead>"] if any(self.head) else []
        tags = ["th scope='row'", *["td"] * (len(self.head) - 1)]
        for index, row in enumerate(self.rows):
            kind = " class='section'" if index in self.breaks else ""
            cells = (_html(*cell) for cell in zip(tags, self.head, row, strict=True))
            lines.append(f"<tr{kind}>{''.join(cells)}</tr>")
        return f"<div class='wide'><table>{''.join(lines)}</table></div>" if self.rows else ""

    def markdown(self) -> str:
        """Return the table as Markdown, as GitHub reads it."""
        rule = ["---:" if isinstance(title, Number) else "---" for title in self.head]
        lines = [map(in_markdown, self.head), rule, *(map(in_markdown, row) for row in self.rows)]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)


@dataclass(frozen=True)
class Fitting:
    """Several forms of a table, of which a terminal shows the first that fits into a line.

    Attributes:
        forms: The forms, the widest first; the last one is shown where none fits.
    """

    forms: Sequence[Grid]

    @property
    def rows(self) -> Sequence[Sequence[Cell]]:
        """The rows of the last form."""
        return self.forms[-1].rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        fitting = (form for form in self.forms if form.fits(console, options))
        yield next(fitting, self.forms[-1])


def facts(known: Iterable[tuple[str, str]]) -> Grid:
    """Return a table without headings: a row for each fact, behind its label."""
    return Grid(["", ""], [[Span(label, "dim"), fact] for label, fact in known])


def number(value: float | None, form: str = ".3f", spread: float | None = None) -> str:
    """Return a number as a cell shows it, with its spread if there is one: `0.512 ± 0.021`."""
    if value is None:
        return "-"
    return f"{value:{form}}" + ("" if spread is None else f" ± {spread:{form}}")


def chance(p: float | None) -> str:
    """Return a p value as a cell shows it; one that would round to zero as `< 0.001`."""
    return "< 0.001" if p is not None and p < 0.001 else number(p)


_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_ACTIVE = re.compile(r"[\\`*|$\[\]]|[<&~](?=\S)|(?<![^\W_])_|_(?![^\W_])")
"""What Markdown would obey; a sign that stands alone ("< 0.1") or within a word (`a_b`) is not."""


def _spans(cell: Cell) -> list[Span]:
    """Return the parts of a cell; a space stands for what would break or control a line."""
    parts = [Span(cell)] if isinstance(cell, str) else [cell] if isinstance(cell, Span) else cell
    return [Span(_CONTROL.sub(" ", part.text), part.style) for part in parts]


def _text(cell: Cell, one_line: bool) -> Text:
    joined = Text("  ").join(Text(part.text, part.style) for part in _spans(cell))
    if one_line:
        joined.no_wrap, joined.overflow = True, "ellipsis"
    return joined


def _html(tag: str, title: str, cell: Cell) -> str:
    parts = _spans(cell)
    tags = {"bold": "<b>{}</b>", "dim": "<span class='dim'>{}</span>"}
    other = "<span>{}</span>" if len(parts) > 1 else "{}"
    content = ", ".join(tags.get(part.style, other).format(escape(part.text)) for part in parts)
    kind = " class='number'" if isinstance(title, Number) else ""
    return f"<{tag}{kind}>{content}</{tag.partition(' ')[0]}>"


def in_markdown(cell: Cell) -> str:
    """Return a cell, or any other text, as Markdown that shows it as it is."""
    parts = [(_ACTIVE.sub(r"\\\g<0>", part.text.strip()), part.style) for part in _spans(cell)]
    return ", ".join(f"**{text}**" if text and style == "bold" else text for text, style in parts)
