"""`peml evaluate`: score a trained adapter on its tasks, or on others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from peml.commands.flags import add_adapter, loading
from prefixnas.base.console import Parser, none_or_more, positive
from prefixnas.commands.output import Output, add_output

if TYPE_CHECKING:
    from prefixnas.report.grid import Grid
    from prefixnas.run.evaluation import Evaluation

HELP = "score a trained adapter on its tasks"

MEAN = "mean of these"
"""What a task of several metrics is scored by, in the place of a metric's name."""


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
    output.result(scores.evaluation.to_json(), _table(scores.evaluation))
    if args.predictions is not None:
        compared.write(args.predictions)
    return 0


def _table(found: Evaluation) -> Grid:
    """Return a row per task and metric; behind a task's score, and their average, its interval."""
    from prefixnas.base.estimates import NORMAL
    from prefixnas.report.grid import Grid, Number, number
    from prefixnas.run.evaluation import AVERAGE

    def scored(name: str, metric: str, score: float, error: float | None) -> list[str]:
        return [name, metric, number(score, spread=None if error is None else NORMAL * error)]

    rows: list[list[str]] = []
    for task, metrics in found.scores.items():
        error = found.standard_errors.get(task)
        alone = len(metrics) == 1
        rows += [scored(task, *each, error if alone else None) for each in metrics.items()]
        if not alone:
            rows.append(scored(task, MEAN, found.task_scores[task], error))
    breaks = [len(rows)] if len(found.scores) > 1 else []
    if breaks:
        rows.append(scored(AVERAGE, "", found.score, found.standard_error))
    return Grid(["task", "metric", Number("score")], rows, breaks)
