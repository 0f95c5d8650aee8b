"""`prefixnas transfer`: does an architecture found on some tasks serve others."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefixnas.base.console import Parser, positive
from prefixnas.base.errors import UserError, brief
from prefixnas.base.files import make_folder, nothing_begun, refuse_used, write_text
from prefixnas.base.yaml import read_yaml
from prefixnas.commands.flags import add_all_flags, add_flags, parse_parts
from prefixnas.commands.output import FLAGS, Output, add_output

if TYPE_CHECKING:
    from prefixnas.compare.cells import Cell
    from prefixnas.compare.transfer import Transfer

HELP = "train architectures found on other tasks"

FILE = "transfer.yaml"


def main(argv: Sequence[str], prog: str) -> int:
    """Run the command."""
    first, others = _parser(prog, {}, help=False).parse_known_args(argv)
    if {"-h", "--help"} & set(others):
        from prefixnas.launch.plan import find_options

        _parser(prog, find_options([("flag", vars(first))])[0], help=True).parse_args(argv)
    if first.out is None:
        raise UserError(f"{prog} needs --out OUT, a folder for all its runs")
    begun = refuse_used(first.out, FILE, "transfer", resume=first.resume)
    if first.resume and not begun and not first.group:
        raise nothing_begun(first.out, FILE, "transfer")
    layers = _stored(first.out) if begun else _read(first.group, first.config)

    from prefixnas.base.options import FLAG
    from prefixnas.launch.plan import find_options

    flags = (FLAG, {k: v for k, v in vars(first).items() if k in NAMES and v is not None})
    named = [*next(iter(layers["groups"].values())), flags]
    parts = parse_parts(argv, find_options(named)[0]["objective"])
    options, _ = find_options([*named, (FLAG, parts)])
    typed = _parser(prog, options, help=True).parse_args(argv)
    given = {k: v for k, v in vars(typed).items() if v is not None and k not in OWN}
    if begun:
        _refuse_change(typed, layers, given)
    transfer = _transfer(first, layers, given)
    cells, output = transfer.cells(), Output.of(first)
    if first.dry_run:
        states = {cell.folder: "finished" if cell.finished else "to run" for cell in cells}
        document = [{"run": folder, "state": state} for folder, state in states.items()]
        output.result({"runs": document}, *(f"{run}: {state}" for run, state in states.items()))
        return 0
    return _run(transfer, first.jobs, _kept(transfer), output)


OWN = ("group", "config", "out", "resume", "dry_run", "seeds", "jobs", "control", *FLAGS)
NAMES = ("strategy", "objective", "plugin")


def parser(prog: str) -> Parser:
    """Return a parser with the flags of every strategy and objective, for completion."""
    from prefixnas.compare.transfer import HELD

    parser = _own_parser(prog, help=True)
    add_all_flags(parser, HELD)
    return parser


def _own_parser(prog: str, *, help: bool) -> Parser:
    parser = Parser(prog=prog, description=HELP, add_help=help, argument_default=None)
    parser.add_argument("group", type=Path, nargs="*", help="groups of tasks: YAML files of keys")
    parser.add_argument("--config", type=Path, metavar="FILE", help="keys of all groups as YAML")
    parser.add_argument("--out", type=Path, metavar="OUT", help="folder for all runs and the table")
    parser.add_argument("--resume", action="store_true", help="go on with --out, if it had begun")
    parser.add_argument("--dry-run", action="store_true", help="list the runs, stop")
    parser.add_argument("--seeds", metavar="N,N", help="seeds (default: 0)")
    parser.add_argument("--jobs", type=positive, default=1, help="runs side by side (default: 1)")
    parser.add_argument("--control", action=argparse.BooleanOptionalAction, default=None,
                        help="also train the space's first options (default: yes)")  # fmt: skip
    add_output(parser)
    return parser


def _parser(prog: str, options: Mapping[str, type[Any]], *, help: bool) -> Parser:
    parser = _own_parser(prog, help=help)
    if not options:
        for name in ("strategy", "objective"):
            parser.add_argument(f"--{name}")
        parser.add_argument("--plugin", nargs="*")
    from prefixnas.compare.transfer import HELD

    for part, cls in options.items():
        add_flags(parser, f"{part} ({cls.__name__})", cls, HELD)
    return parser


def _read(files: Sequence[Path], common: Path | None) -> dict[str, Any]:
    from prefixnas.compare.transfer import HELD, group_names
    from prefixnas.launch.config import read_config

    shared = [(str(common), read_config(common))] if common is not None else []
    groups = {
        name: [*shared, (str(file), read_config(file))] for name, file in group_names(files).items()
    }
    for where, layer in [pair for group in groups.values() for pair in group]:
        if held := next((key for key in HELD if key in layer), None):
            raise UserError(f"{where}: key {held!r}: the transfer table sets it")
    return {"groups": groups}


def _stored(out: Path) -> dict[str, Any]:
    path = out / FILE
    data = read_yaml(path)
    if not isinstance(data, dict) or not isinstance(data.get("groups"), dict):
        raise UserError(f"{path}: not what a transfer writes")
    groups, seeds = data["groups"], data.get("seeds", [])
    if len(groups) < 2 or not all(_is_group(*group) for group in groups.items()):
        raise UserError(f"{path}: key 'groups': must be at least two names of folders with keys")
    if not isinstance(seeds, list) or not all(type(seed) is int for seed in seeds):
        raise UserError(f"{path}: key 'seeds': must be a list of whole numbers, not {brief(seeds)}")
    if not isinstance(control := data.get("control", True), bool):
        raise UserError(f"{path}: key 'control': must be true or false, not {brief(control)}")
    return {**data, "groups": {name: [(str(path), layer)] for name, layer in groups.items()}}


def _is_group(name: Any, keys: Any) -> bool:
    named = isinstance(name, str) and Path(name).name == name and "\0" not in name
    return named and isinstance(keys, dict) and all(isinstance(key, str) for key in keys)


def _transfer(
    first: argparse.Namespace, layers: Mapping[str, Any], flags: Mapping[str, Any]
) -> Transfer:
    from prefixnas.base.options import FLAG
    from prefixnas.compare.transfer import Transfer
    from prefixnas.launch.plan import check_space

    seeds = layers.get("seeds", _seeds(first))
    control = layers.get("control", first.control is not False)
    if len(set(seeds)) < len(seeds):
        raise UserError("--seeds: one is named twice")
    groups = {name: [*group, (FLAG, flags)] for name, group in layers["groups"].items()}
    for group in groups.values():
        check_space(group)
    return Transfer(groups, seeds, control, first.out)


def _seeds(first: argparse.Namespace) -> list[int]:
    """Return the seeds that are typed, 0 if none is."""
    try:
        return [int(seed) for seed in (first.seeds or "0").split(",")]
    except ValueError as error:
        raise UserError(
            f"--seeds: expected numbers like 0,1,2, not {brief(first.seeds)}"
        ) from error


def _refuse_change(
    typed: argparse.Namespace, stored: Mapping[str, Any], flags: Mapping[str, Any]
) -> None:
    """Refuse to go on with a transfer as another one.

    Raises:
        UserError: Names the first thing that is typed and differs from what was begun.
    """
    from prefixnas.base.options import FLAG
    from prefixnas.launch.config import refuse_change
    from prefixnas.launch.plan import resolve_run

    path = typed.out / FILE
    if typed.config is not None and not typed.group:
        raise UserError("--config: name the groups, too, or leave it out to go on as it began")
    given = _read(typed.group, typed.config)["groups"] if typed.group else {}
    now: dict[str, Any] = {"groups": sorted(given)} if typed.group else {}
    now |= {"seeds": _seeds(typed)} if typed.seeds is not None else {}
    now |= {"control": typed.control} if typed.control is not None else {}
    began = {**stored, "groups": sorted(stored["groups"])}
    refuse_change({key: began.get(key, now[key]) for key in now}, now, path)
    for name, layers in stored["groups"].items():
        again = [*layers, *given.get(name, ()), (FLAG, flags)]
        refuse_change(resolve_run(layers), resolve_run(again), path)


def _kept(transfer: Transfer) -> dict[str, Any]:
    """Return what `--resume` needs: each group's keys in one layer."""
    from prefixnas.launch.plan import resolve_run

    groups = {}
    for name, layers in transfer.groups.items():
        given = {"strategy", "objective", *(key for _, layer in layers for key in layer)}
        given |= {"steps"} if "epochs" in given else set()  # which steps take the place of
        groups[name] = {key: value for key, value in resolve_run(layers).items() if key in given}
    return {"groups": groups, "seeds": list(transfer.seeds), "control": transfer.control}


def _carry(
    transfer: Transfer, cells: Sequence[Cell]
) -> tuple[dict[Path, dict[str, Any]], list[str]]:
    """Score what each finished search trained on the problems of the other groups.

    Returns:
        The scores by their files, and a line for each that could not be taken.
    """
    from prefixnas.compare.carried import carry_over

    carried: dict[Path, dict[str, Any]] = {}
    lost: list[str] = []
    finished = {cell.folder for cell in cells if cell.finished}
    for row in transfer.rows({}):
        source, target, seed = row["source"], row["target"], row["seed"]
        found, wanted = transfer.searched(source, seed), transfer.searched(target, seed)
        values = next(cell.values for cell in cells if cell.folder == wanted)
        if found in finished:
            path = transfer.carried(source, target, seed)
            try:
                carried[path] = carry_over(found, values, path)
            except UserError as error:
                lost.append(f"{source} to {target}, seed {seed}: {error}")
    return carried, lost


def _run(transfer: Transfer, jobs: int, kept: Mapping[str, Any], output: Output) -> int:
    import yaml

    from prefixnas.base.locks import alone
    from prefixnas.compare.cells import refuse_other_cells
    from prefixnas.compare.runner import (
        PATIENCE,
        notes,
        one_of_each_space,
        run_cells,
        unfinished,
    )
    from prefixnas.compare.transfer import table, write_table
    from prefixnas.launch.check import check_problem

    cells = transfer.cells()
    refuse_other_cells(cells)
    waiting = unfinished(cells)
    for group in transfer.groups:
        check_problem(one_of_each_space([cell for cell in waiting if cell.space == group]))
    make_folder(transfer.out)
    with alone(transfer.out, "is comparing", PATIENCE) as lock:
        write_text(transfer.out / FILE, yaml.safe_dump(dict(kept), sort_keys=False))
        run_cells(cells, jobs, lock, output.note)
        neither, lost = _carry(transfer, cells)
        rows = transfer.rows(neither)
        written = write_table(rows, transfer.out)
    output.result({"rows": rows, "written": written}, table(rows), f"written: {written}", wide=200)
    failed = [cell for cell in cells if not cell.finished]
    lost += [f"{cell.name}: {notes(cell).get('error', 'not run')}" for cell in failed]
    for line in lost:
        output.failed(line)
    return 1 if lost else 0
