"""`prefixnas report`: write a run's plots and its self-contained page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefixnas.base.console import Parser

HELP = "write a run's plots and report.html"


def main(argv: Sequence[str], prog: str) -> int:
    """Run the command."""
    parser = Parser(prog=prog, description=HELP)
    parser.add_argument("run", type=Path, help="a run directory")
    args = parser.parse_intermixed_args(argv)

    from prefixnas.base.locks import alone
    from prefixnas.report.run_page import write_report
    from prefixnas.run.record import read_record

    read_record(args.run)  # before a lock is left in a folder that holds no run
    with alone(args.run, "draws"):
        print(write_report(args.run))
    return 0
