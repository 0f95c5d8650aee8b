"""`prefixnas search`: search, train on, evaluate, write a run directory."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefixnas.base.console import Parser
from prefixnas.base.errors import UserError, brief
from prefixnas.base.files import refuse_used
from prefixnas.commands.flags import add_all_flags, add_flags, parse_parts
from prefixnas.commands.output import FLAGS, Output, add_output

if TYPE_CHECKING:
    from prefixnas.run.events import Event

HELP = "search, train on, evaluate, export"


def search_command(argv: Sequence[str], prog: str, fixed: Mapping[str, Any] | None = None) -> int:
    """Parse, resolve and run a search.

    Args:
        argv: The arguments after the command.
        prog: How the command is called, for the help.
        fixed: Keys that this command sets and does not offer.
    """
    from prefixnas.base.options import FLAG, fields_of
    from prefixnas.launch.config import dump_config, read_config, refuse_change, refuse_former
    from prefixnas.launch.plan import check_space, find_options, plan_run, resolve_run
    from prefixnas.run.ranks import launched

    fixed = dict(fixed or {})
    first, _ = _parser(prog, {}, fixed, help=False).parse_known_args(argv)
    layers: list[tuple[str, Mapping[str, Any]]] = [("command", fixed)]
    stored: dict[str, Any] = {}
    if first.resume:
        if first.out is None:
            raise UserError("--resume needs --out RUN")
        refuse_used(first.out, "config.yaml", "run", resume=True)
        stored = read_config(first.out / "config.yaml")
        layers.append((str(first.out / "config.yaml"), stored))
    if first.config is not None:
        layers.append((str(first.config), read_config(first.config)))
    for where, layer in layers:
        for name, value in fixed.items():
            if layer.get(name, value) != value:
                raise UserError(
                    f"{where}: key {name!r}: {prog} takes {brief(value)}, not {brief(layer[name])}"
                )
    options, _ = find_options([*layers, (FLAG, vars(first))])
    parts = parse_parts(argv, options["objective"])
    options, names = find_options([*layers, (FLAG, vars(first)), (FLAG, parts)])
    if first.resume:
        refuse_change(stored, names, first.out)
        refuse_former(stored, fields_of(options), first.out)
    args = _parser(prog, options, fixed, help=True).parse_args(argv)
    layers.append((FLAG, {name: value for name, value in vars(args).items()
                          if value is not None and name not in OWN}))  # fmt: skip
    if launched() > 1 and not any("processes" in layer for _, layer in layers):
        layers.append(("launcher", {"processes": launched()}))
    values = resolve_run(layers)
    check_space(layers)
    if args.resume:
        refuse_change(stored, values, args.out)
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
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
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
    from prefixnas.launch.plan import plan_run
    from prefixnas.launch.start import start_run
    from prefixnas.report.document import doubts, run_document
    from prefixnas.report.progress import open_progress
    from prefixnas.report.remarks import remarks
    from prefixnas.report.tables import fitting_score_table
    from prefixnas.run.ranks import end_now, followed, join, leave, said_once
    from prefixnas.run.record import read_record

    ranks = join()
    shows = ranks.first and not followed()
    with said_once(ranks):
        folder = Path(ranks.agree(str(args.out or _free_folder(plan_run(values).run))))
        display = open_progress(
            earlier=_earlier(folder) if args.resume else (),
            quiet=output.quiet,
            verbose=output.verbose,
        )
        with display if shows else nullcontext() as progress:
            on_event = progress.on_event if progress is not None else None
            start_run(values, folder, resume=args.resume, on_event=on_event, report=args.report)
    leave()
    if shows:
        record = read_record(folder)
        tested = record.tested()
        test: list[Any] = (
            ["On the test split, scored once:", fitting_score_table(tested)] if tested else []
        )
        table = fitting_score_table(record.columns())
        last = f"run directory: {folder}"
        output.result(run_document(record), table, *test, *remarks(record), *doubts(record), last)
    if ranks.count > 1:
        end_now()
    return 0


def _earlier(folder: Path) -> Iterable[Event]:
    """Return what a run that goes on has said; what is damaged is refused later, with a reason."""
    from prefixnas.run.events import read_events

    with suppress(UserError):
        return read_events(folder)
    return ()


def _free_folder(run_config: Any) -> Path:
    stem = f"{Path(run_config.space).stem}-{run_config.strategy}-seed{run_config.seed}"
    number = 1
    while True:
        folder = Path("runs") / (stem if number == 1 else f"{stem}-{number}")
        if not folder.exists():
            return folder
        number += 1
