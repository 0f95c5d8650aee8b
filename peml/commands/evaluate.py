"""`peml evaluate`: score a trained adapter on its tasks, or on others."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from peml.commands.flags import add_adapter, loading
from prefixnas.base.console import Parser, positive
from prefixnas.base.errors import one_line

HELP = "score a trained adapter on its tasks"


def main(argv: Sequence[str], prog: str) -> int:
    """Run the command."""
    parser = Parser(prog=prog, description=HELP)
    add_adapter(parser)
    parser.add_argument("--tasks", nargs="+", help="task files, folders (default: the run's)")
    parser.add_argument("--split", default="validation", help="train, selection or validation")
    parser.add_argument("--eval-limit", type=positive, help="most examples of a task")
    parser.add_argument("--max-length", type=positive, help="tokens (default: the run's)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_intermixed_args(argv)

    from peml.adapters.evaluate import evaluate
    from peml.adapters.load import load
    from peml.adapters.manifest import read_manifest
    from peml.model.quiet import quiet_libraries
    from peml.tasks.spec import check_split
    from peml.tasks.task import load_tasks
    from prefixnas.report.grid import Grid, Number, number
    from prefixnas.report.terminal import Terminal

    check_split(args.split)
    quiet_libraries()
    sources = args.tasks or read_manifest(args.adapter).sources
    tasks = load_tasks(sources, eval_limit=args.eval_limit)
    adapted = load(args.adapter, **loading(args))
    scores = evaluate(adapted, tasks, args.split, max_length=args.max_length, warn=_warn)
    if args.json:
        print(json.dumps(scores))
        return 0
    rows = [
        [task, metric, number(value)]
        for task, metrics in scores.items()
        for metric, value in metrics.items()
    ]
    Terminal().print(Grid(["task", "metric", Number("score")], rows))
    return 0


def _warn(message: str) -> None:
    print(one_line(f"warning: {message}"), file=sys.stderr)
