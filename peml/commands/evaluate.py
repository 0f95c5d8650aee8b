"""`peml evaluate`: score a trained adapter on its tasks, or on others."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from prefixnas.base.console import Parser, none_or_more, positive
from prefixnas.base.errors import one_line

HELP = "score a trained adapter on its tasks"


def main(argv: Sequence[str], prog: str) -> int:
    """Run the command."""
    parser = Parser(prog=prog, description=HELP)
    parser.add_argument("adapter", type=Path, metavar="RUN", help="run directory or adapter folder")
    parser.add_argument("--tasks", nargs="+", help="task files, folders (default: the run's)")
    parser.add_argument("--split", default="validation", help="train, selection or validation")
    parser.add_argument("--eval-limit", type=positive, help="most examples of a task")
    parser.add_argument("--shots", type=none_or_more, help="examples in front of a prompt")
    parser.add_argument("--num-beams", type=positive, help="of generation tasks")
    parser.add_argument("--max-length", type=positive, help="tokens (default: the run's)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_intermixed_args(argv)

    from peml.adapters.evaluate import evaluate, trained_tasks
    from peml.adapters.manifest import read_manifest
    from peml.model.quiet import quiet_libraries
    from peml.tasks.spec import check_split
    from peml.tasks.task import load_tasks
    from prefixnas.report.grid import Grid, Number, number
    from prefixnas.report.terminal import Terminal

    check_split(args.split)
    quiet_libraries()
    manifest = read_manifest(args.adapter)
    limit, shots, beams = args.eval_limit, args.shots, args.num_beams
    if args.tasks:
        tasks = load_tasks(args.tasks, eval_limit=limit, shots=shots or 0, num_beams=beams or 1)
    else:
        tasks = trained_tasks(manifest, eval_limit=limit, shots=shots, num_beams=beams)
    scores = evaluate(args.adapter, tasks, args.split, max_length=args.max_length, warn=_warn)
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
