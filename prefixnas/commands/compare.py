"""`prefixnas compare`: several strategies on several spaces, at one budget."""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefixnas.base.console import Parser
from prefixnas.base.errors import UserError, unknown
from prefixnas.base.files import make_folder, nothing_begun, refuse_used, write_text
from prefixnas.base.options import fields_of
from prefixnas.commands.flags import add_all_flags, add_flags, parse_parts
from prefixnas.commands.output import Output, add_output

if TYPE_CHECKING:
    from rich.console import RenderableType

    from prefixnas.compare.cells import Cell
    from prefixnas.compare.comparison import Comparison

HELP = "compare strategies at one budget, over seeds"

FILE = "comparison.yaml"


LISTS = ("space", "strategies", "seeds", "references")
"""Keys whose values may stand in one text with commas between."""


def main(argv: Sequence[str], prog: str) -> int:
    """Run the command."""
    from prefixnas.base.options import FLAG, make, renamed, resolve
    from prefixnas.compare.cells import refuse_other_cells
    from prefixnas.compare.comparison import Comparison
    from prefixnas.compare.variants import CompareConfig, option_classes
    from prefixnas.launch.config import read_config
    from prefixnas.launch.plan import check_space, find_options

    own = {entry.name for entry in dataclasses.fields(CompareConfig)}
    first, others = _parser(prog, [], help=False).parse_known_args(argv)
    out: Path | None = first.out
    if out is None and not {"-h", "--help"} & set(argv):
        raise UserError(f"{prog} needs --out OUT, a folder for all its runs")
    files: list[tuple[str, dict[str, Any]]] = []
    if out is not None:
        if refuse_used(out, FILE, "comparison", resume=first.resume or first.tables):
            files.append((str(out / FILE), read_config(out / FILE)))
        elif first.tables or (first.resume and not others and not _says(first, own)):
            raise nothing_begun(out, FILE, "comparison")
    if first.config is not None:
        files.append((str(first.config), read_config(first.config)))
    flags = {key: value for key, value in vars(first).items() if value is not None}
    mine = [(where, _split(_only(layer, own))) for where, layer in [*files, ("flag", flags)]]
    values = resolve({"compare": CompareConfig}, mine)
    settings: CompareConfig = make(CompareConfig, values)
    basis = [(where, _without(layer, own)) for where, layer in files]
    names = (FLAG, _only(flags, {"objective", "plugin"}))
    parts = parse_parts(argv, find_options([*basis, names])[0]["objective"])
    classes = option_classes(settings, [*basis, names, (FLAG, parts)])

    parsed = _parser(prog, classes, help=True).parse_args(argv)
    assert out is not None
    every = {name: entry for cls in classes for name, entry in fields_of({"": cls}).items()}
    known = {*every} - own - set(HELD)
    basis = [(where, renamed(layer, every, where)) for where, layer in basis]
    typed = {key: value for key, value in vars(parsed).items() if value is not None}
    for where, layer in basis:
        for key in layer:
            if key not in known:
                raise unknown("key", key, known | own, where)
    check_space(mine)
    comparison = Comparison.of(settings, [*basis, (FLAG, _only(typed, known))])
    cells = comparison.cells(out)
    output = Output.of(parsed)
    if not first.tables:
        refuse_other_cells(cells)
        if first.dry_run:
            return _list(cells, output)
        _run(comparison, cells, values, out, output)
    return _show(comparison, cells, out, output)


def _says(first: Namespace, own: Collection[str]) -> bool:
    """Tell whether flags say what to compare; how many runs go side by side says nothing of it."""
    return any(vars(first)[key] is not None for key in {*own, "config", "objective"} - {"jobs"})


def _list(cells: Sequence[Cell], output: Output) -> int:
    """Print the runs."""
    states = ["finished" if c.finished else "refused" if c.refused else "to run" for c in cells]
    document = [
        {"run": cell.folder, "state": state, "reason": cell.refused}
        for cell, state in zip(cells, states, strict=True)
    ]
    lines = [
        f"{cell.name}: {state}" + (f", {cell.refused}" if state == "refused" else "")
        for cell, state in zip(cells, states, strict=True)
    ]
    output.result({"runs": document}, *lines)
    return 0


def _run(
    comparison: Comparison,
    cells: Sequence[Cell],
    values: Mapping[str, Any],
    out: Path,
    output: Output,
) -> None:
    """Run what is not finished."""
    from prefixnas.base.extras import require
    from prefixnas.base.locks import alone
    from prefixnas.compare.runner import PATIENCE, one_of_each_space, run_cells, unfinished
    from prefixnas.launch.check import check_problem
    from prefixnas.launch.config import dump_config

    require("matplotlib", "a comparison")
    if waiting := unfinished(cells):
        output.note(f"{len(waiting)} runs; first the problem is built once, to find mistakes")
        check_problem(one_of_each_space(waiting))
    make_folder(out)
    with alone(out, "is comparing", PATIENCE) as lock:
        write_text(out / FILE, dump_config({**values, **comparison.shared()}))
        run_cells(cells, comparison.settings.jobs, lock, output.note)


def _show(comparison: Comparison, cells: Sequence[Cell], out: Path, output: Output) -> int:
    """Write and print the tables; 1 if a run failed."""
    from prefixnas.compare.files import write_comparison
    from prefixnas.compare.results import failures
    from prefixnas.compare.tables import render

    results, tables = write_comparison(comparison, cells, out)
    document = {
        "out": out,
        "runs": results,
        "summary": {space: [row.row() for row in rows] for space, rows in tables.items()},
    }
    parts: list[RenderableType] = [render(tables), f"tables, plot and runs: {out}"]
    if left := sum(result.state == "not run" for result in results):
        parts.append(f"not finished: {left} of {len(cells)} runs")
    output.result(document, *parts, wide=240)
    failed = failures(results)
    for line in failed:
        output.failed(line)
    return 1 if failed else 0


HELD = ("strategy", "steps", "seed")
"""Keys of a run that a comparison calls strategies, budget and seeds."""


def parser(prog: str) -> Parser:
    """Return a parser with the flags of every strategy and objective, for completion."""
    from prefixnas.compare.variants import CompareConfig

    parser = _own_parser(prog, help=True)
    add_flags(parser, CompareConfig.__name__, CompareConfig, HELD)
    add_all_flags(parser, {*HELD, *fields_of({"": CompareConfig})})
    return parser


def _own_parser(prog: str, *, help: bool) -> Parser:
    parser = Parser(prog=prog, description=HELP if help else None, add_help=help)
    parser.add_argument("--config", type=Path, metavar="FILE", help="keys as YAML; flags win")
    parser.add_argument("--out", type=Path, metavar="OUT", help="folder for all runs and tables")
    parser.add_argument("--resume", action="store_true", help="go on with --out, if it had begun")
    parser.add_argument("--dry-run", action="store_true", help="list the runs, stop")
    parser.add_argument(
        "--tables", action="store_true", help="write the tables of what is there, run nothing"
    )
    add_output(parser)
    return parser


def _parser(prog: str, classes: Sequence[type[Any]], *, help: bool) -> Parser:
    from prefixnas.compare.variants import CompareConfig

    parser = _own_parser(prog, help=help)
    seen = set(HELD)
    every: list[type[Any]] = [CompareConfig, *classes]
    for cls in every:
        add_flags(parser, cls.__name__, cls, seen)
        seen |= {*fields_of({"": cls})}
    if not classes:
        parser.add_argument("--objective")
        parser.add_argument("--plugin", nargs="*")
    return parser


def _split(layer: Mapping[str, Any]) -> dict[str, Any]:
    """Split texts at their commas; seeds are whole numbers."""
    values = dict(layer)
    for key in LISTS:
        given = values.get(key)
        if isinstance(given, (str, int)):
            given = [given]
        if isinstance(given, list):
            parts = [part.split(",") if isinstance(part, str) else [part] for part in given]
            values[key] = [item for part in parts for item in part]
    if isinstance(values.get("seeds"), list):
        values["seeds"] = [_whole(seed) for seed in values["seeds"]]
    return values


def _whole(value: Any) -> Any:
    """Return the whole number that a text stands for, or what it is."""
    with suppress(ValueError):
        return int(value) if isinstance(value, str) else value
    return value


def _only(layer: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {key: value for key, value in layer.items() if key in names}


def _without(layer: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {key: value for key, value in layer.items() if key not in names}
