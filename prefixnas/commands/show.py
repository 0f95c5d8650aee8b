"""`prefixnas show`: print what a run found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefixnas.base.console import Parser

HELP = "print what a run found"


def main(argv: Sequence[str], prog: str) -> int:
    """Run the command."""
    parser = Parser(prog=prog, description=HELP)
    parser.add_argument("run", type=Path, help="a run directory")
    args = parser.parse_intermixed_args(argv)

    from prefixnas.report.tables import show
    from prefixnas.report.terminal import Terminal

    Terminal().print(show(args.run))
    return 0
