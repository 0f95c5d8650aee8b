"""`prefixnas search`: search, train on, evaluate, write a run directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefixnas.base.console import Parser
from prefixnas.base.errors import UserError
from prefixnas.commands.flags import add_flags, parse_parts

HELP = "search, train on, evaluate, export"


def search_command(argv: Sequence[str], prog: str, fixed: Mapping[str, Any] | None = None) -> int:
    """Parse, resolve and run a search.

    Args:
        argv: The arguments after the command.
        prog: How the command is called, for the help.
        fixed: Keys that this command sets and does not offer.
    """
    from prefixnas.base.options import FLAG
    from prefixnas.launch.config import dump_config
    from prefixnas.launch.plan import plan_run
    from prefixnas.launch.request import Request

    fixed = dict(fixed or {})
    first, _ = _parser(prog, {}, fixed, help=False).parse_known_args(argv)
    if first.resume and first.out is None:
        raise UserError("--resume needs --out RUN")
    request = Request(prog, fixed, first.config, first.out if first.resume else None)
    options = request.options((FLAG, vars(first)))
    parts = parse_parts(argv, options["objective"])
    options = request.options((FLAG, vars(first)), (FLAG, parts))
    parser = _parser(prog, options, fixed, help=True)
    flags = {
        name: value for name, value in vars(parser.parse_args(argv)).items() if value is not None
    }
    out, resume, dry_run = flags.pop("out", None), flags.pop("resume"), flags.pop("dry_run")
    flags.pop("config", None)
    values = request.resolve((FLAG, flags))
    if dry_run:
        plan = plan_run(values)
        print(dump_config(values), end="")
        for line in plan.objective.preview():
            print(f"# {line}")  # what is printed stays a configuration
        return 0
    return _search(values, out, resume)


main = search_command


def _parser(
    prog: str, options: Mapping[str, type[Any]], fixed: Mapping[str, Any], *, help: bool
) -> Parser:
    parser = Parser(prog=prog, add_help=help, argument_default=None)
    parser.add_argument("--config", type=Path, metavar="FILE", help="keys as YAML; flags win")
    parser.add_argument("--out", type=Path, metavar="RUN", help="run directory (default: runs/...)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved config, stop")
    if not options:
        if "strategy" not in fixed:
            parser.add_argument("--strategy")
        parser.add_argument("--objective")
        parser.add_argument("--plugin", nargs="*", default=[])
        return parser
    for part, cls in options.items():
        add_flags(parser, f"{part} ({cls.__name__})" if part != "run" else "run", cls, fixed)
    return parser


def _search(values: Mapping[str, Any], out: Path | None, resume: bool) -> int:
    from prefixnas.launch.start import start_here
    from prefixnas.report.progress import open_progress
    from prefixnas.report.tables import fitting_score_table
    from prefixnas.report.terminal import Terminal
    from prefixnas.run.events import Evidence
    from prefixnas.run.ranks import end_now
    from prefixnas.run.record import read_record

    ranks, result = start_here(values, out, resume=resume, display=open_progress())
    if ranks.first:
        record = read_record(result.folder)
        Terminal().print(fitting_score_table(record.columns()))
        for doubt in {found.doubt() for found in record.of(Evidence)} - {""}:
            print(doubt)
        print(f"run directory: {result.folder}")
    if ranks.count > 1:
        end_now()
    return 0
