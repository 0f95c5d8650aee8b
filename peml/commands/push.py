"""`peml push`: put an adapter or an export on a hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefixnas.base.console import Parser
from prefixnas.commands.output import Output, add_output

HELP = "put an adapter or an export on a hub"


def parser(prog: str) -> Parser:
    """Return the command's parser."""
    parser = Parser(prog=prog, description=HELP)
    parser.add_argument(
        "folder", type=Path, metavar="RUN", help="run directory, adapter folder or export"
    )
    parser.add_argument("repo", metavar="OWNER/NAME", help="repository, made if it is not there")
    parser.add_argument("--private", action="store_true", default=None, help="make it private")
    parser.add_argument("--revision", help="branch, made if it is not there (default: main)")
    add_output(parser)
    return parser


def main(argv: Sequence[str], prog: str) -> int:
    """Run the command."""
    args = parser(prog).parse_intermixed_args(argv)
    output = Output.of(args)

    from peml.adapters.push import push
    from peml.model.quiet import quiet_libraries

    quiet_libraries()
    pushed = push(
        args.folder, args.repo, private=args.private, revision=args.revision, warn=output.warn
    )
    if pushed.left_out:
        output.warn(f"left out, as no export writes it: {', '.join(pushed.left_out)}")
    output.result(pushed, pushed.url)
    return 0
