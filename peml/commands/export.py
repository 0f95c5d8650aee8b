"""`peml export`: write a trained adapter as something to deploy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from peml.commands.flags import add_adapter, loading, say
from prefixnas.base.console import Parser

HELP = "write something to deploy"


def main(argv: Sequence[str], prog: str) -> int:
    """Run the command."""
    parser = Parser(prog=prog, description=HELP)
    add_adapter(parser, device="cpu")
    parser.add_argument("out", type=Path, metavar="OUT", help="a folder that is not there yet")
    parser.add_argument("--format", default="peml", help="merged, peft or peml")
    parser.add_argument("--task", help="for which task, where the method makes a model of each")
    args = parser.parse_intermixed_args(argv)

    from peml.adapters.export import export
    from peml.model.quiet import quiet_libraries

    quiet_libraries()
    export(args.adapter, args.out, args.format, task=args.task, warn=say, **loading(args))
    print(args.out)
    return 0
