"""`peml evaluate`: score a trained adapter on its tasks, or on others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from peml.commands.flags import add_adapter, loading
from prefixnas.base.console import Parser, none_or_more, positive
from prefixnas.commands.output import Output, add_output

if TYPE_CHECKING:
    from prefixnas.report.grid import Grid

HELP = "score a trained adapter on its tasks"


def parser(prog: str) -> Parser:
    """Return the command's parser."""
    parser = Parser(prog=prog, description=HELP)
    add_adapter(parser)
    parser.add_argument("--tasks", nargs="+", help="task files, folders (default: the run's)")
    parser.add_argument(
        "--split", default="validation", help="train, selection, validation or test"
    )
    parser.add_argument("--eval-limit", type=positive, help="most examples of a task")
    parser.add_argument("--shots", type=none_or_more, help="examples in front of a prompt")
    parser.add_argument("--num-beams", type=positive, help="of generation tasks")
    parser.add_argument("--max-length", type=positive, help="tokens (default: the run's)")
    parser.add_argument(
        "--predictions", type=Path, metavar="FILE", help="JSONL, CSV or Parquet file of the answers"
    )
    add_output(parser)
    return parser


def main(argv: Sequence[str], prog: str) -> int:
    """Run the command."""
    args = parser(prog).parse_intermixed_args(argv)
    output = Output.of(args)

    from peml.adapters.evaluate import evaluate
    from peml.adapters.predict import Compared
    from peml.model.quiet import quiet_libraries
    from peml.tasks.results import check_place
    from peml.tasks.spec import check_split

    check_split(args.split)
    if args.predictions is not None:
        check_place(args.predictions)
    quiet_libraries()
    compared = Compared()
    scores = evaluate(
        args.adapter,
        args.tasks or None,
        args.split,
        eval_limit=args.eval_limit,
        shots=args.shots,
        num_beams=args.num_beams,
        max_length=args.max_length,
        warn=output.warn,
        seen=compared.add,
        **loading(args),
    )
    output.result(scores, _table(scores))
    if args.predictions is not None:
        compared.write(args.predictions)
    return 0


def _table(scores: Mapping[str, Mapping[str, float]]) -> Grid:
    from prefixnas.report.grid import Grid, Number, number

    rows = [
        [task, metric, number(value)]
        for task, metrics in scores.items()
        for metric, value in metrics.items()
    ]
    return Grid(["task", "metric", Number("score")], rows)
