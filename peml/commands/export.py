"""`peml export`: write a trained adapter as something to deploy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from peml.commands.flags import add_adapter, loading
from prefixnas.base.console import Parser
from prefixnas.commands.output import Output, add_output

HELP = "write something to deploy"


def parser(prog: str) -> Parser:
    """Return the command's parser."""
    parser = Parser(prog=prog, description=HELP)
    add_adapter(parser, device="cpu")
    parser.add_argument("out", type=Path, metavar="OUT", help="a folder that is not there yet")
    parser.add_argument("--format", default="peml", help="merged, peft or peml")
    parser.add_argument("--task", help="for which task, where the method makes a model of each")
    add_output(parser)
    return parser


def main(argv: Sequence[str], prog: str) -> int:
    """Run the command."""
    args = parser(prog).parse_intermixed_args(argv)
    output = Output.of(args)

    from peml.adapters.export import export
    from peml.model.quiet import quiet_libraries

    quiet_libraries()
    export(args.adapter, args.out, args.format, task=args.task, warn=output.warn, **loading(args))
    output.result({"out": args.out, "format": args.format}, str(args.out))
    return 0
