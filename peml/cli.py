"""The command line: `peml train | evaluate | export | generate`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from prefixnas.cli import Parser, guarded, positive, search_command, split_command
from prefixnas.errors import UserError, unknown


def main(argv: Sequence[str] | None = None) -> int:
    """Run `peml`."""
    return guarded(_main, argv)


def _main(argv: Sequence[str]) -> int:
    parser = Parser(prog="peml", description="One adapter for many tasks: LoRA and a prefix.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("train", help="train a known architecture, without search", add_help=False)
    evaluate = commands.add_parser("evaluate", help="score a trained adapter on its tasks")
    _adapter(evaluate)
    evaluate.add_argument("--tasks", nargs="+", help="task files, folders (default: the run's)")
    evaluate.add_argument("--split", default="validation", help="train, selection or validation")
    evaluate.add_argument("--eval-limit", type=positive, help="most examples of a task")
    evaluate.add_argument("--max-length", type=positive, help="tokens (default: the run's)")
    evaluate.add_argument("--json", action="store_true", help="print JSON")
    export = commands.add_parser("export", help="write something to deploy")
    _adapter(export)
    export.add_argument("out", type=Path, metavar="OUT", help="a folder that is not there yet")
    export.add_argument("--format", default="peml", help="merged, peft or peml")
    generate = commands.add_parser("generate", help="let a trained model write")
    _adapter(generate)
    generate.add_argument("prompt", nargs="*", help="prompts; none: one per line of stdin")
    generate.add_argument("--max-new-tokens", type=positive, default=32)
    command, rest = split_command(parser, commands.choices, argv)
    if command == "train":
        fixed = {"strategy": "fixed", "objective": "language-model"}
        return search_command(rest, "peml train", fixed)
    run = {"evaluate": _evaluate, "export": _export, "generate": _generate}[command]
    return run(commands.choices[command].parse_intermixed_args(rest))


def _adapter(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("adapter", type=Path, metavar="RUN", help="run directory or adapter folder")


def _evaluate(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from peml.collate import Collator
    from peml.evaluation import evaluate
    from peml.export import load, read_manifest
    from peml.quiet import quiet_libraries
    from peml.task_spec import SPLITS
    from peml.tasks import load_tasks

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


def _export(args: argparse.Namespace) -> int:
    from peml.export import export
    from peml.quiet import quiet_libraries

    quiet_libraries()
    export(args.adapter, args.out, args.format)
    print(args.out)
    return 0


def _generate(args: argparse.Namespace) -> int:
    from peml.export import load
    from peml.quiet import quiet_libraries

    quiet_libraries()
    lm = load(args.adapter)
    if lm.family == "encoder":
        raise UserError(f"{args.adapter}: the encoder-only model {lm.name!r} cannot write text")
    for prompt in args.prompt or (line.rstrip("\n") for line in sys.stdin):
        inputs = lm.tokenizer(prompt, return_tensors="pt").to(lm.device)
        inputs.pop("token_type_ids", None)
        written = lm.model.generate(  # type: ignore[operator]
            **inputs,
            max_new_tokens=args.max_new_tokens,
            do_sample=False,
            pad_token_id=lm.tokenizer.pad_token_id,
        )
        start = inputs["input_ids"].shape[1] if lm.family == "decoder" else 0
        print(lm.tokenizer.decode(written[0, start:], skip_special_tokens=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
