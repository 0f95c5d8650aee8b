"""How figures look, and how they are written."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.figure import Figure

from prefixnas.base.files import write_bytes

#: Hues that stay apart for colour-blind readers (Okabe and Ito), black left out.
HUES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D1F", "#666666")
INK, FAINT, BAND = "#222222", "#8a8f98", "#f4f5f7"


def plain(text: str) -> str:
    """Return `text` so that matplotlib shows it as it is: a dollar sign would start a formula."""
    return text.replace("$", r"\$")


def save_figure(figure: Figure, path: Path, dots: int = 150) -> None:
    """Write a figure in the format of the path's suffix, whole or not at all.

    Raises:
        UserError: The file cannot be written.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix.lower().removeprefix("."), dpi=dots)
    write_bytes(path, buffer.getvalue())
