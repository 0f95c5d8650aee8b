"""The command line: `prefixnas search | spaces | strategies | show | report`."""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, get_args

from prefixnas.errors import UserError, nearest, unknown

if TYPE_CHECKING:
    from prefixnas.config import RunConfig
    from prefixnas.objective import ObjectiveConfig
    from prefixnas.run import Budget
    from prefixnas.space import SearchSpace
    from prefixnas.strategy import Strategy


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, with the nearest flag."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage."""
        if message.startswith("unrecognized arguments: "):
            flag = message.removeprefix("unrecognized arguments: ").split()[0]
            known = [name for action in self._actions for name in action.option_strings]
            raise UserError(f"unknown argument {flag!r}{nearest(flag, known)}")
        if choice := re.match(r"argument COMMAND: invalid choice: '(.*?)'", message):
            commands = next(a.choices for a in self._actions if a.metavar == "COMMAND")
            raise unknown("command", choice[1], commands or ())
        raise UserError(message)


def guarded(command: Callable[[Sequence[str]], int], argv: Sequence[str] | None) -> int:
    """Run a command; what a user can put right is one line on stderr and exit code 2."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return command(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command with --resume goes on", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a full disk, a folder without the right to write
        place = f"{error.filename}: " if error.filename else ""
        print(f"error: {place}{error.strerror or error}", file=sys.stderr)
        return 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run `prefixnas`."""
    return guarded(_main, argv)


def split_command(
    parser: Parser, commands: Collection[str], argv: Sequence[str]
) -> tuple[str, Sequence[str]]:
    """Return the command and its arguments; without one, print the help if asked for it.

    Raises:
        UserError: No command, an unknown one, or a flag in front of it.
    """
    if argv and argv[0] in commands:
        return argv[0], argv[1:]
    if argv and argv[0].startswith("-") and argv[0] not in ("-h", "--help"):
        raise UserError(f"unknown argument {argv[0]!r}: flags come after the command")
    parser.parse_args(argv)
    raise AssertionError("the parser took a command that does not exist")


def positive(text: str) -> int:
    """Parse a flag that is a whole number of at least 1."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {text!r}")
    return number


def _main(argv: Sequence[str]) -> int:
    parser = Parser(prog="prefixnas", description="Architecture search for small modules.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("search", help="search, train on, evaluate, export", add_help=False)
    spaces = commands.add_parser("spaces", help="list the spaces, or show one")
    spaces.add_argument("name", nargs="?", help="a space or a YAML file")
    spaces.add_argument("--width", type=positive, default=64, help="width for the parameter counts")
    strategies = commands.add_parser("strategies", help="list the strategies, or explain one")
    strategies.add_argument("name", nargs="?")
    show = commands.add_parser("show", help="print what a run found")
    show.add_argument("run", type=Path, help="a run directory")
    report = commands.add_parser("report", help="write a run's plots and report.html")
    report.add_argument("run", type=Path, help="a run directory")
    command, rest = split_command(parser, commands.choices, argv)
    if command == "search":
        return search_command(rest, prog="prefixnas search")
    run = {"spaces": _spaces, "strategies": _strategies, "show": _show, "report": _report}[command]
    return run(commands.choices[command].parse_intermixed_args(rest))


# search


def search_command(argv: Sequence[str], prog: str, fixed: Mapping[str, Any] | None = None) -> int:
    """Parse, resolve and run a search.

    Args:
        argv: The arguments after the command.
        prog: How the command is called, for the help.
        fixed: Keys that this command sets and does not offer.
    """
    from prefixnas import config

    fixed = dict(fixed or {})
    first, _ = _parser(prog, {}, fixed, help=False).parse_known_args(argv)
    layers: list[tuple[str, Mapping[str, Any]]] = [("command", fixed)]
    stored: dict[str, Any] = {}
    if first.resume:
        if first.out is None:
            raise UserError("--resume needs --out RUN")
        stored = _stored(first.out)
        layers.append((str(first.out / "config.yaml"), stored))
    if first.config is not None:
        layers.append((str(first.config), config.read_config(first.config)))
    for where, layer in layers:
        for name, value in fixed.items():
            if layer.get(name, value) != value:
                raise UserError(
                    f"{where}: key {name!r}: {prog} takes {value!r}, not {layer[name]!r}"
                )
    options, names = _options(layers, first)
    if first.resume:
        config.refuse_change(stored, names, first.out)
    parser = _parser(prog, options, fixed, help=True)
    flags = {
        name: value for name, value in vars(parser.parse_args(argv)).items() if value is not None
    }
    out, resume, dry_run = flags.pop("out", None), flags.pop("resume"), flags.pop("dry_run")
    flags.pop("config", None)
    values = config.resolve(options, [*layers, (config.FLAG, flags)])
    values["objective"] = names["objective"]
    if resume:
        config.refuse_change(stored, values, out)
    if dry_run:
        _plan(options, values)
        print(config.dump_config(values), end="")
        return 0
    return _search(options, values, out, resume)


def _options(
    layers: Sequence[tuple[str, Mapping[str, Any]]], flags: argparse.Namespace
) -> tuple[dict[str, type[Any]], dict[str, str]]:
    """Find the dataclasses whose fields are this run's keys; return also their names."""
    from prefixnas.config import RunConfig
    from prefixnas.objective import OBJECTIVES
    from prefixnas.registry import load_plugin
    from prefixnas.strategy import STRATEGIES

    values: dict[str, Any] = {"strategy": RunConfig.strategy, "objective": None}
    plugins: list[str] = []
    for where, layer in [*layers, ("flag", vars(flags))]:
        for name in ("strategy", "objective"):
            if layer.get(name) is not None:
                if not isinstance(layer[name], str):
                    raise UserError(f"{where}: key {name!r}: expected a name, not {layer[name]!r}")
                values[name] = layer[name]
        given = layer.get("plugin") or []
        given = [given] if isinstance(given, str) else given
        if not isinstance(given, list) or not all(isinstance(item, str) for item in given):
            raise UserError(f"{where}: key 'plugin': must be a list of texts, not {given!r}")
        plugins += given
    for plugin in plugins:
        load_plugin(plugin)
    names = {**values, "objective": values["objective"] or _only_objective()}
    options: dict[str, type[Any]] = {
        "run": RunConfig,
        "strategy": STRATEGIES.get(names["strategy"]),
        "objective": OBJECTIVES.get(names["objective"]),
    }
    return options, names


def _only_objective() -> str:
    from prefixnas.objective import OBJECTIVES

    names = OBJECTIVES.names()
    if len(names) != 1:
        raise UserError(f"name the problem: --objective ({', '.join(names) or 'none installed'})")
    return names[0]


def _parser(
    prog: str, options: Mapping[str, type[Any]], fixed: Mapping[str, Any], *, help: bool
) -> Parser:
    from prefixnas import config

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
    kinds = config.types(options)
    for part, cls in options.items():
        group = parser.add_argument_group(f"{part} ({cls.__name__})" if part != "run" else "run")
        for entry in dataclasses.fields(cls):
            if entry.name not in fixed:
                _add_flag(group, entry, kinds[entry.name])
    return parser


def _add_flag(group: Any, entry: dataclasses.Field[Any], kind: Any) -> None:
    from prefixnas import config

    flag = "--" + entry.name.replace("_", "-")
    text = entry.metadata.get("help", "")
    shown = config.default(entry)
    help = f"{text} (default: {shown})".replace("%", "%%").strip()
    if kind is bool:
        group.add_argument(
            flag, dest=entry.name, action=argparse.BooleanOptionalAction, default=None, help=help
        )
    elif config.is_list(kind):
        group.add_argument(flag, dest=entry.name, nargs="*", metavar="X", help=help)
    else:
        allowed = config.literals(kind)
        metavar = "|".join(str(item) for item in allowed if item is not None) or _metavar(kind)
        group.add_argument(flag, dest=entry.name, metavar=metavar, help=help)


def _metavar(kind: Any) -> str:
    parts = [part for part in get_args(kind) if part is not type(None)] or [kind]
    return "/".join(getattr(part, "__name__", "X").upper() for part in parts)


def _stored(out: Path) -> dict[str, Any]:
    from prefixnas import config

    path = out / "config.yaml"
    if not path.is_file():
        raise UserError(f"{out}: no run to resume (no config.yaml in it)")
    return config.read_config(path)


@dataclass(frozen=True)
class _Plan:
    """Everything cheap of a run."""

    run: RunConfig
    strategy: Strategy
    objective: ObjectiveConfig
    space: SearchSpace
    budget: Budget


def _plan(options: Mapping[str, type[Any]], values: Mapping[str, Any]) -> _Plan:
    """Build everything cheap, so that mistakes show before anything is loaded or written."""
    from prefixnas import config
    from prefixnas.run import Budget
    from prefixnas.space_yaml import load_space

    run_config, strategy, objective = (
        config.make(options[part], values) for part in ("run", "strategy", "objective")
    )
    space = load_space(run_config.space)
    for_search = round(run_config.steps * run_config.search_fraction)
    budget = Budget(for_search, run_config.steps - for_search)
    strategy.check(space, run_config.settings, budget)
    return _Plan(run_config, strategy, objective, space, budget)


def _search(
    options: Mapping[str, type[Any]], values: Mapping[str, Any], out: Path | None, resume: bool
) -> int:
    from rich.console import Console

    from prefixnas import config
    from prefixnas.driver import search
    from prefixnas.files import write_text
    from prefixnas.progress import open_progress
    from prefixnas.report import write_report
    from prefixnas.run import Run
    from prefixnas.supernet import check_operations
    from prefixnas.tables import table
    from prefixnas.training import Recipe

    plan = _plan(options, values)
    run_config, space = plan.run, plan.space
    folder = out or _free_folder(run_config)
    _refuse_used(folder, resume)
    objective = plan.objective.build(plan.budget.total, run_config.seed)
    check_operations(space, objective.width)
    _make_folder(folder)
    write_text(folder / "config.yaml", config.dump_config(values))
    recipe = config.make(Recipe, values)
    with open_progress() as progress:
        run = Run(
            folder,
            space,
            objective,
            plan.budget,
            run_config.seed,
            settings=run_config.settings,
            checkpoint_every=run_config.checkpoint_every,
            on_event=progress.on_event,
            resume=resume,
        )
        search(run, plan.strategy, recipe, baseline=run_config.baseline)
    write_report(folder, space)
    Console().print(table(folder))
    print(f"run directory: {folder}")
    return 0


def _free_folder(run_config: Any) -> Path:
    stem = f"{Path(run_config.space).stem}-{run_config.strategy}-seed{run_config.seed}"
    number = 1
    while True:
        folder = Path("runs") / (stem if number == 1 else f"{stem}-{number}")
        if not folder.exists():
            return folder
        number += 1


def _refuse_used(folder: Path, resume: bool) -> None:
    if not resume and (folder / "config.yaml").is_file():
        raise UserError(f"{folder}: holds a run already; add --resume, or take another --out")
    if not resume and folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder}: is not empty; take another --out")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file, not a folder")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise UserError(f"{folder}: cannot write there: {error.strerror}") from error


# the other commands


def _spaces(args: argparse.Namespace) -> int:
    from prefixnas.space_yaml import load_space, space_names, space_to_yaml
    from prefixnas.supernet import count_parameters

    if args.name is None:
        for name in space_names():
            space = load_space(name)
            print(f"{name:14} {space.size:>12,} architectures, {len(space.decisions)} decisions")
        return 0
    space = load_space(args.name)
    print(space_to_yaml(space), end="")
    print(f"\n# {space.size:,} architectures")
    for decision in space.decisions:
        print(f"# {decision.name} (by {decision.decided_by}): {', '.join(decision.options)}")
    parameters = count_parameters(space, space.first(), args.width)
    print(f"# parameters of the first options at width {args.width}: {parameters:,}")
    return 0


def _strategies(args: argparse.Namespace) -> int:
    import inspect

    from prefixnas import config
    from prefixnas.strategy import STRATEGIES

    if args.name is None:
        for name in STRATEGIES.names():
            print(f"{name:12} {(inspect.getdoc(STRATEGIES.get(name)) or '').splitlines()[0]}")
        return 0
    cls = STRATEGIES.get(args.name)
    module = inspect.getmodule(cls)
    print(inspect.getdoc(module) if module else inspect.getdoc(cls))
    print()
    for entry in config.keys({"strategy": cls}).values():
        text = entry.metadata.get("help", "")
        print(f"--{entry.name.replace('_', '-'):22} {text} (default: {config.default(entry)})")
    return 0


def _show(args: argparse.Namespace) -> int:
    from rich.console import Console

    from prefixnas.tables import show

    Console().print(show(args.run))
    return 0


def _report(args: argparse.Namespace) -> int:
    from prefixnas.report import write_report

    print(write_report(args.run))
    return 0


if __name__ == "__main__":
    sys.exit(main())
