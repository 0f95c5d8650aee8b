"""`peml train`: train a known architecture, without search."""

from __future__ import annotations

from collections.abc import Sequence

from prefixnas.base.console import Parser
from prefixnas.commands import search
from prefixnas.commands.search import search_command

HELP = "train a known architecture, without search"

FIXED = {"strategy": "fixed", "objective": "language-model"}


def parser(prog: str) -> Parser:
    """Return a parser with the flags of every method, for completion."""
    return search.parser(prog, FIXED)


def main(argv: Sequence[str], prog: str) -> int:
    """Run the command."""
    return search_command(argv, prog, FIXED)
