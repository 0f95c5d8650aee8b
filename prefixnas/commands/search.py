"""`prefixnas search`: search, train on, evaluate, write a run directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from prefixnas.base.console import Parser
from prefixnas.base.errors import UserError, brief
from prefixnas.base.files import refuse_used
from prefixnas.commands.flags import add_flags, parse_parts

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
    parser = _parser(prog, options, fixed, help=True)
    flags = {
        name: value for name, value in vars(parser.parse_args(argv)).items() if value is not None
    }
    out, resume, dry_run = flags.pop("out", None), flags.pop("resume"), flags.pop("dry_run")
    flags.pop("config", None)
    layers.append((FLAG, flags))
    if launched() > 1 and not any("processes" in layer for _, layer in layers):
        layers.append(("launcher", {"processes": launched()}))
    values = resolve_run(layers)
    check_space(layers)
    if resume:
        refuse_change(stored, values, out)
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
    from prefixnas.launch.plan import plan_run
    from prefixnas.launch.start import start_run
    from prefixnas.report.progress import open_progress
    from prefixnas.report.remarks import remarks
    from prefixnas.report.tables import fitting_score_table
    from prefixnas.report.terminal import Terminal
    from prefixnas.run.events import Evidence
    from prefixnas.run.ranks import end_now, join, leave, said_once
    from prefixnas.run.record import read_record

    ranks = join()
    with said_once(ranks):
        folder = Path(ranks.agree(str(out or _free_folder(plan_run(values).run))))
        with open_progress() if ranks.first else nullcontext() as progress:
            on_event = progress.on_event if progress is not None else None
            start_run(values, folder, resume=resume, on_event=on_event)
    leave()
    if ranks.first:
        record = read_record(folder)
        Terminal().print(fitting_score_table(record.columns()))
        for remark in remarks(record):
            print(remark)
        for doubt in {found.doubt() for found in record.of(Evidence)} - {""}:
            print(doubt)
        print(f"run directory: {folder}")
    if ranks.count > 1:
        end_now()
    return 0


def _free_folder(run_config: Any) -> Path:
    stem = f"{Path(run_config.space).stem}-{run_config.strategy}-seed{run_config.seed}"
    number = 1
    while True:
        folder = Path("runs") / (stem if number == 1 else f"{stem}-{number}")
        if not folder.exists():
            return folder
        number += 1
