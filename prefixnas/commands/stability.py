"""`prefixnas stability`: compare differentiable searches by how steadily they went."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefixnas.base.console import Parser
from prefixnas.base.files import make_folder

HELP = "how steadily differentiable searches went, and how far they agree"


def main(argv: Sequence[str], prog: str) -> int:
    """Run the command."""
    parser = Parser(prog=prog, description=HELP)
    parser.add_argument("run", type=Path, nargs="+", help="finished runs with alphas")
    parser.add_argument(
        "--by", metavar="KEY", default="relaxation", help="runs are grouped by it (relaxation)"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to write CSV and PNG")
    args = parser.parse_intermixed_args(argv)

    from prefixnas.compare.stability import (
        differences,
        grouped,
        read_searches,
        tables,
        write_tables,
    )
    from prefixnas.compare.stability_plots import write_stability_plots
    from prefixnas.report.terminal import Terminal

    searches = read_searches(args.run, args.by)
    groups = grouped(searches)
    Terminal(soft_wrap=True).print(tables(groups, args.by))
    if other := differences(searches, args.by):
        print(f"warning: the runs differ in other keys too: {', '.join(other)}")
    if args.out is not None:
        make_folder(args.out)
        written = write_tables(args.out, groups, args.by)
        written += write_stability_plots(args.out, groups)
        print(f"written: {', '.join(map(str, written))}")
    return 0
