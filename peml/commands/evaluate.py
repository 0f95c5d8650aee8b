"""`peml evaluate`: score a trained adapter on its tasks, or on others."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from prefixnas.base.console import Parser, positive
from prefixnas.base.errors import unknown

HELP = "score a trained adapter on its tasks"


def main(argv: Sequence[str], prog: str) -> int:
    """Run the command."""
    parser = Parser(prog=prog, description=HELP)
    parser.add_argument("adapter", type=Path, metavar="RUN", help="run directory or adapter folder")
    parser.add_argument("--tasks", nargs="+", help="task files, folders (default: the run's)")
    parser.add_argument("--split", default="validation", help="train, selection or validation")
    parser.add_argument("--eval-limit", type=positive, help="most examples of a task")
    parser.add_argument("--max-length", type=positive, help="tokens (default: the run's)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_intermixed_args(argv)

    from rich.console import Console
    from rich.table import Table

    from peml.adapters.export import load, read_manifest
    from peml.answers.evaluation import evaluate
    from peml.batches.collate import Collator
    from peml.model.quiet import quiet_libraries
    from peml.tasks.spec import SPLITS
    from peml.tasks.task import load_tasks

    if args.split not in SPLITS:
        raise unknown("split", args.split, SPLITS)
    quiet_libraries()
    trained = read_manifest(args.adapter).tasks
    sources = args.tasks or [task["source"] for task in trained]
    tasks = load_tasks(sources, eval_limit=args.eval_limit)
    lm = load(args.adapter)
    if lm.heads is not None and (
        strange := [t.name for t in tasks if t.name not in lm.heads.outputs]
    ):
        raise unknown("task", strange[0], lm.heads.outputs, f"{args.adapter}: heads")
    longest = args.max_length or next((task.get("max_length") for task in trained), None)
    collator = Collator(lm, max_length=longest)
    scores = evaluate(lm, tasks, args.split, heads=lm.heads, collator=collator)
    for message in collator.truncation.messages():
        print(f"warning: {message}", file=sys.stderr)
    if args.json:
        print(json.dumps(scores))
        return 0
    table = Table("task", "metric", "score")
    for task, metrics in scores.items():
        for metric, value in metrics.items():
            table.add_row(task, metric, f"{value:.3f}")
    Console().print(table)
    return 0
