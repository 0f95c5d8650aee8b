"""`prefixnas report`: write a run's plots and its self-contained page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefixnas.base.console import Parser
from prefixnas.commands.output import Output, add_output

HELP = "write a run's plots and report.html"


def parser(prog: str) -> Parser:
    """Return the command's parser."""
    parser = Parser(prog=prog, description=HELP)
    parser.add_argument("run", type=Path, help="a run directory")
    add_output(parser)
    return parser


def main(argv: Sequence[str], prog: str) -> int:
    """Run the command."""
    args = parser(prog).parse_intermixed_args(argv)

    from prefixnas.base.locks import alone
    from prefixnas.report.run_page import write_report
    from prefixnas.run.record import read_record

    read_record(args.run)  # before a lock is left in a folder that holds no run
    with alone(args.run, "draws"):
        page = write_report(args.run)
    Output.of(args).result({"report": page}, str(page))
    return 0
