"""`peml predict`: answer new records with what was trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from peml.commands.flags import add_adapter, loading
from prefixnas.base.console import Parser, positive
from prefixnas.commands.output import Output, add_output

HELP = "answer new records"


def parser(prog: str) -> Parser:
    """Return the command's parser."""
    parser = Parser(prog=prog, description=HELP)
    add_adapter(parser)
    parser.add_argument("file", type=Path, metavar="FILE", help="JSONL, CSV, TSV or Parquet file")
    parser.add_argument("--task", help="which of the run's tasks (default: the only one)")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="JSONL, CSV or Parquet file (default: print JSONL)"
    )
    parser.add_argument("--max-length", type=positive, help="tokens (default: the run's)")
    add_output(parser)
    return parser


def main(argv: Sequence[str], prog: str) -> int:
    """Run the command."""
    args = parser(prog).parse_intermixed_args(argv)
    output = Output.of(args)

    from peml.adapters.load import load
    from peml.adapters.manifest import read_manifest
    from peml.adapters.predict import as_records, columns_of, predict, result_columns
    from peml.adapters.tasks import trained_task
    from peml.commands.progress import counted
    from peml.model.quiet import quiet_libraries
    from peml.tasks.questions import questions
    from peml.tasks.results import Results

    quiet_libraries()
    # All that can be wrong with the files shows before the model is loaded.
    task = trained_task(read_manifest(args.adapter), args.task, args.adapter)
    records = as_records(args.file)
    questions(task, records)
    results = Results(args.out, records, result_columns(task.kind), args.file)
    adapted = load(args.adapter, **loading(args))
    with counted(len(records.rows), "rows", output) as progress:
        answers = predict(
            adapted,
            records,
            task.name,
            max_length=args.max_length,
            warn=output.warn,
            progress=progress,
        )
    columns = columns_of(answers, task.kind)
    if args.out is not None:
        results.write(columns)
        output.result({"out": args.out, "rows": len(records.rows)}, str(args.out))
    elif output.json:
        output.result({"rows": results.rows(columns)})
    else:
        results.write(columns)
    return 0
