"""`peml table`: rows of methods and prefixes under one recipe, over seeds, as one table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prefixnas.base.console import Parser
from prefixnas.base.errors import UserError
from prefixnas.base.files import (
    make_folder,
    nothing_begun,
    read_text,
    refuse_used,
    write_text,
)
from prefixnas.commands.output import Output, add_output

if TYPE_CHECKING:
    from peml.tables.cells import Cell
    from peml.tables.plan import Table

HELP = "compare methods under one recipe, as a table"

COPY = "table.yaml"
"""The copy of the file in the table's folder."""


def parser(prog: str) -> Parser:
    """Return the command's parser."""
    parser = Parser(prog=prog, description=HELP)
    parser.add_argument("file", type=Path, metavar="FILE", help="rows, tasks and seeds as YAML")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for all runs and the table")
    parser.add_argument(
        "--resume", action="store_true", help="go on with --out, if it had begun, or help with it"
    )
    parser.add_argument("--dry-run", action="store_true", help="list and count the runs, stop")
    parser.add_argument(
        "--tables", action="store_true", help="write the table of what is there, run nothing"
    )
    add_output(parser)
    return parser


def main(argv: Sequence[str], prog: str) -> int:
    """Run the command."""
    args = parser(prog).parse_intermixed_args(argv)
    output = Output.of(args)
    out: Path | None = args.out
    if out is None and not args.dry_run:
        raise UserError(f"{prog} needs --out DIR, a folder for all its runs")
    going_on = args.resume or args.tables
    if out is not None and not (_begun(out) and (going_on or args.dry_run)):
        refuse_used(out, COPY, "table", resume=going_on)
        if args.tables:
            raise nothing_begun(out, COPY, "table")

    from peml.model.quiet import quiet_libraries
    from peml.tables.file import read_table
    from peml.tables.plan import plan_table

    quiet_libraries()
    table = plan_table(read_table(args.file), str(args.file))
    if args.dry_run:
        return _list(table, out, output)
    assert out is not None
    return _carry_out(table, args.file, out, output, run=not args.tables)


def _begun(out: Path) -> bool:
    """Tell whether a folder holds a table's runs, of an earlier version or with their file."""
    return (out / COPY).is_file() or next(out.glob("*/x*/seed*/row.json"), None) is not None


def _list(table: Table, out: Path | None, output: Output) -> int:
    """Print what a table takes."""
    from peml.tables.plan import count

    lines, rows = [f"task {column}" for column in table.columns], []
    for row in table.rows:
        values, trials, runs = row.values, table.trials(row), table.runs(row, 1.0)
        finished = None if out is None else _finished(table, out, row.label)
        done = "" if finished is None else f"; finished: {finished}"
        what = f"method {values['method']}, space {values['space']}"
        tried = f"{len(trials)} trials of {trials[0].steps} steps, " if trials else ""
        lines.append(f"{row.label}: {what}; {tried}{len(runs)} runs of {runs[0].steps} steps{done}")
        named = {"row": row.label, "method": values["method"], "space": values["space"]}
        counted = {"trials": len(trials), "runs": len(runs), "finished": finished}
        rows.append({**named, **counted})
    left_out = table.file.left_out
    lines += [f"{label}: left out: {reason}" for label, reason in left_out.items()]
    total = count(table)
    lines.append(
        f"{total['runs']} runs and {total['trials']} trials of learning rates, "
        f"{total['steps']:,} joint steps"
    )
    tasks = [column.name for column in table.columns]
    output.result({"tasks": tasks, "rows": rows, "left_out": left_out, "total": total}, *lines)
    return 0


def _finished(table: Table, out: Path, label: str) -> int:
    return sum(cell.record(out) is not None for cell in table.cells(out) if cell.row.label == label)


def _carry_out(table: Table, file: Path, out: Path, output: Output, *, run: bool) -> int:
    """Carry out what is missing, write the table, print it; 1 if a row failed."""
    from peml.tables.plan import count
    from peml.tables.work import refuse_other_runs, work
    from peml.tables.write import document, render, write_soon, write_table

    refuse_other_runs(table, out)
    make_folder(out)
    failed: dict[str, str] = {}
    if run:
        write_text(out / COPY, read_text(file))
        every = count(table)["trials"] + count(table)["runs"]

        def told(cell: Cell) -> None:
            record = cell.record(out)
            assert record is not None
            done = sum(cell.record(out) is not None for cell in table.cells(out))
            output.note(f"[{done}/{every}] {cell.name}: {record.said}")
            write_soon(table, out)

        failed = work(table, out, told)
    rows = write_table(table, out, failed)
    shown = render(table, rows, failed)
    output.result(
        {"out": out, **document(table, rows, failed)},
        shown,
        f"table, plot and runs: {out}",
        wide=240,
    )
    for label, reason in failed.items():
        output.failed(f"{label}: {reason}")
    return 1 if failed else 0
