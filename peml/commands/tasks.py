"""`peml tasks`: show what is read from tasks, as the model sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prefixnas.base.console import Parser, positive
from prefixnas.base.errors import visible
from prefixnas.commands.output import Output, add_output

if TYPE_CHECKING:
    from peml.batches.collate import Collator
    from peml.tasks.examples import Example
    from peml.tasks.task import Task

HELP = "show tasks as the model sees them"


def parser(prog: str) -> Parser:
    """Return the command's parser."""
    parser = Parser(prog=prog, description=HELP)
    parser.add_argument("tasks", nargs="+", metavar="TASK", help="task files, folders, embedded")
    parser.add_argument("--show", type=positive, default=5, metavar="N", help="examples (5)")
    parser.add_argument("--split", default="train", help="train, selection, validation or test")
    parser.add_argument("--tokens", action="store_true", help="show the tokens of --model too")
    parser.add_argument("--model", default="embedded:llama", help="whose tokens")
    parser.add_argument("--max-length", type=positive, default=256, help="longest input in tokens")
    add_output(parser)
    return parser


def main(argv: Sequence[str], prog: str) -> int:
    """Run the command."""
    args = parser(prog).parse_intermixed_args(argv)
    output = Output.of(args)

    from peml.tasks.load import load_tasks
    from peml.tasks.preview import document, read_example, report, shown
    from peml.tasks.spec import check_split

    check_split(args.split)
    tasks = load_tasks(args.tasks)
    collator = _collator(args.model, args.max_length, tasks) if args.tokens else None
    lines, documents = [], []
    for number, task in enumerate(tasks):
        lines.append("\n" * bool(number) + visible("\n".join(report(task))))
        lost = _lost(collator, task) if collator is not None else []
        lines += [visible(f"note        {line}") for line in lost]
        examples = []
        for example in task.splits.get(args.split, ())[: args.show]:
            tokens = _tokens(collator, task, example, args.split) if collator is not None else {}
            parts = (f"  {name:<7} {' '.join(some)}" for name, some in tokens.items())
            lines.append(visible("\n".join([*shown(task, example, args.split), *parts])))
            examples.append({**read_example(task, example, args.split), **tokens})
        told = document(task)
        notes = [*told["notes"], *lost]
        documents.append({**told, "notes": notes, "split": args.split, "examples": examples})
    output.result({"tasks": documents}, *lines)
    return 0


def _collator(model: str, max_length: int, tasks: Sequence[Task]) -> Collator:
    from peml.batches.collate import Collator
    from peml.model.load import load_language_model
    from peml.model.quiet import quiet_libraries

    quiet_libraries()
    collator = Collator(load_language_model(model), max_length=max_length)
    collator.check(tasks)
    return collator


def _lost(collator: Collator, task: Task) -> list[str]:
    """Tokenise all examples of a task; return a line of what was cut off."""
    from peml.batches.truncation import TruncationCounter

    collator.truncation = TruncationCounter()
    for split in task.splits:
        collator.lengths(task, split)
    return collator.truncation.messages()


def _tokens(collator: Collator, task: Task, example: Example, split: str) -> dict[str, list[str]]:
    ids = collator.encode(task, example)
    prompt = ids.prompt if split == "train" else collator.prompt(task, example)
    parts = {"tokens": prompt, "answer": ids.answer}
    tokenizer = collator.lm.tokenizer
    return {
        name: [*tokenizer.convert_ids_to_tokens(list(some))] for name, some in parts.items() if some
    }
