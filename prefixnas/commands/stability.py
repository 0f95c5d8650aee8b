"""`prefixnas stability`: compare differentiable searches by how steadily they went."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prefixnas.base.console import Parser
from prefixnas.base.files import make_folder
from prefixnas.commands.output import Output, add_output

if TYPE_CHECKING:
    from rich.console import RenderableType

HELP = "how steadily differentiable searches went, and how far they agree"


def parser(prog: str) -> Parser:
    """Return the command's parser."""
    parser = Parser(prog=prog, description=HELP)
    parser.add_argument("run", type=Path, nargs="+", help="finished runs with alphas")
    parser.add_argument(
        "--by", metavar="KEY", default="relaxation", help="runs are grouped by it (relaxation)"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to write CSV and PNG")
    add_output(parser)
    return parser


def main(argv: Sequence[str], prog: str) -> int:
    """Run the command."""
    args = parser(prog).parse_intermixed_args(argv)
    output = Output.of(args)

    from prefixnas.compare.stability import (
        differences,
        grouped,
        read_searches,
        rows_of_tables,
        share_a_seed,
        tables,
        write_tables,
    )
    from prefixnas.compare.stability_plots import write_stability_plots

    searches = read_searches(args.run, args.by)
    groups = grouped(searches)
    if other := differences(searches, args.by):
        output.warn(f"the runs differ in other keys too: {', '.join(other)}")
    if alike := [label for label, members in groups.items() if share_a_seed(members)]:
        output.warn(f"no p for {', '.join(alike)}: runs that share a seed are not independent")
    parts: list[RenderableType] = [tables(groups, args.by)]
    written: list[Path] = []
    if args.out is not None:
        make_folder(args.out)
        written = write_tables(args.out, groups, args.by)
        written += write_stability_plots(args.out, groups)
        parts.append(f"written: {', '.join(map(str, written))}")
    document = {"by": args.by, **rows_of_tables(groups, args.by), "written": written}
    output.result(document, *parts, wrap=False)
    return 0
