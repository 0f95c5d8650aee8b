"""`prefixnas show`: print what a run found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefixnas.base.console import Parser
from prefixnas.commands.output import Output, add_output

HELP = "print what a run found"


def parser(prog: str) -> Parser:
    """Return the command's parser."""
    parser = Parser(prog=prog, description=HELP)
    parser.add_argument("run", type=Path, help="a run directory")
    add_output(parser)
    return parser


def main(argv: Sequence[str], prog: str) -> int:
    """Run the command."""
    args = parser(prog).parse_intermixed_args(argv)

    from prefixnas.report.document import run_document
    from prefixnas.report.tables import show
    from prefixnas.run.record import read_record

    Output.of(args).result(run_document(read_record(args.run)), show(args.run))
    return 0
