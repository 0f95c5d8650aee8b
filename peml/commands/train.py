"""`peml train`: train a known architecture, without search."""

from __future__ import annotations

from collections.abc import Sequence

from prefixnas.commands.search import search_command

HELP = "train a known architecture, without search"


def main(argv: Sequence[str], prog: str) -> int:
    """Run the command."""
    return search_command(argv, prog, {"strategy": "fixed", "objective": "language-model"})
