"""`prefixnas search`: search, train on, evaluate, write a run directory."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefixnas.base.console import Parser
from prefixnas.base.errors import UserError
from prefixnas.commands.flags import add_all_flags, add_flags, parse_parts
from prefixnas.commands.output import FLAGS, Output, add_output

if TYPE_CHECKING:
    from prefixnas.run.events import Event

HELP = "search, train on, evaluate, save"


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
    args = _parser(prog, options, fixed, help=True).parse_args(argv)
    given = {name: v for name, v in vars(args).items() if v is not None and name not in OWN}
    values = request.resolve((FLAG, given))
    if args.dry_run:
        preview = list(plan_run(values).objective.preview())
        lines = [f"# {line}" for line in preview]  # what is printed stays a configuration
        shown = "\n".join([dump_config(values).rstrip("\n"), *lines])
        Output.of(args).result({"config": values, "preview": preview}, shown)
        return 0
    return _search(values, args, Output.of(args))


main = search_command

OWN = ("config", "out", "resume", "dry_run", "report", *FLAGS)
"""Flags that are no keys of a run."""


def parser(prog: str, fixed: Collection[str] = ()) -> Parser:
    """Return a parser with the flags of every strategy and objective, for completion."""
    parser = _own_parser(prog, help=True)
    add_all_flags(parser, fixed)
    return parser


def _own_parser(prog: str, *, help: bool) -> Parser:
    parser = Parser(prog=prog, add_help=help, argument_default=None)
    parser.add_argument("--config", type=Path, metavar="FILE", help="keys as YAML; flags win")
    parser.add_argument("--out", type=Path, metavar="RUN", help="run directory (default: runs/...)")
    parser.add_argument("--resume", action="store_true", help="go on with --out, if it had begun")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved config, stop")
    parser.add_argument(
        "--no-report", dest="report", action="store_false", help="draw no plots and no report.html"
    )
    add_output(parser)
    return parser


def _parser(
    prog: str, options: Mapping[str, type[Any]], fixed: Mapping[str, Any], *, help: bool
) -> Parser:
    parser = _own_parser(prog, help=help)
    if not options:
        if "strategy" not in fixed:
            parser.add_argument("--strategy")
        parser.add_argument("--objective")
        parser.add_argument("--plugin", nargs="*", default=[])
        return parser
    for part, cls in options.items():
        add_flags(parser, f"{part} ({cls.__name__})" if part != "run" else "run", cls, fixed)
    return parser


def _search(values: Mapping[str, Any], args: Namespace, output: Output) -> int:
    from prefixnas.launch.start import start_here
    from prefixnas.report.document import doubts, run_document
    from prefixnas.report.progress import open_progress
    from prefixnas.report.remarks import remarks
    from prefixnas.report.tables import fitting_score_table
    from prefixnas.run.ranks import end_now, followed
    from prefixnas.run.record import read_record

    display = None
    if not (silent := followed()):
        earlier = _earlier(args.out) if args.resume else ()
        display = open_progress(earlier=earlier, quiet=output.quiet, verbose=output.verbose)
    ranks, result = start_here(
        values, args.out, resume=args.resume, display=display, report=args.report
    )
    if ranks.first and not silent:
        record = read_record(result.folder)
        tested = record.tested()
        test: list[Any] = (
            ["On the test split, scored once:", fitting_score_table(tested)] if tested else []
        )
        table = fitting_score_table(record.columns())
        last = f"run directory: {result.folder}"
        output.result(run_document(record), table, *test, *remarks(record), *doubts(record), last)
    if ranks.count > 1:
        end_now()
    return 0


def _earlier(folder: Path) -> Iterable[Event]:
    """Return what a run that goes on has said; what is damaged is refused later, with a reason."""
    from prefixnas.run.event_file import read_events

    with suppress(UserError):
        return read_events(folder)
    return ()
