"""A grid as LaTeX, for a document with the package booktabs."""

from __future__ import annotations

import re
from collections.abc import Sequence

from prefixnas.report.grid import Grid, Number, Span

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "|": r"\textbar{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "`": r"\textasciigrave{}",
    "[": "{[}",
    "*": "{*}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def latex(grid: Grid, caption: str, notes: Sequence[str] = ()) -> str:
    """Return a floating table.

    Args:
        grid: The table.
        caption: What it shows.
        notes: Sentences below it.
    """
    form = "".join("r" if isinstance(title, Number) else "l" for title in grid.head)
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{escaped(caption)}}}"]
    lines += [rf"\begin{{tabular}}{{{form}}}", r"\toprule", _line(grid.head), r"\midrule"]
    lines += [_line([_text(cell) for cell in row]) for row in grid.rows]
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par {escaped(note)}." for note in notes]
    return "\n".join([*lines, r"\end{table}", ""])


def escaped(text: str) -> str:
    """Return a text that LaTeX shows as it is; a sign in front of a number is a minus.

    At the beginning of a line a bracket or a star would be an argument of the command before it.
    """
    shown = "".join(_SPECIAL.get(sign, sign) for sign in " ".join(text.split()))
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", shown)


def _line(cells: Sequence[str]) -> str:
    return " & ".join(map(escaped, cells)) + r" \\"


def _text(cell: object) -> str:
    parts = [cell] if isinstance(cell, str | Span) else list(cell)  # type: ignore[call-overload]
    return ", ".join(part if isinstance(part, str) else part.text for part in parts)
