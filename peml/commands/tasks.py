"""`peml tasks`: show what is read from tasks, as the model sees it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from prefixnas.base.console import Parser, positive
from prefixnas.base.errors import visible

if TYPE_CHECKING:
    from peml.batches.collate import Collator
    from peml.tasks.task import Example, Task

HELP = "show tasks as the model sees them"


def main(argv: Sequence[str], prog: str) -> int:
    """Run the command."""
    parser = Parser(prog=prog, description=HELP)
    parser.add_argument("tasks", nargs="+", metavar="TASK", help="task files, folders, embedded")
    parser.add_argument("--show", type=positive, default=5, metavar="N", help="examples (5)")
    parser.add_argument("--split", default="train", help="train, selection, validation or test")
    parser.add_argument("--tokens", action="store_true", help="show the tokens of --model too")
    parser.add_argument("--model", default="embedded:llama", help="whose tokens")
    parser.add_argument("--max-length", type=positive, default=256, help="longest input in tokens")
    args = parser.parse_intermixed_args(argv)

    from peml.tasks.preview import report, shown
    from peml.tasks.spec import check_split
    from peml.tasks.task import load_tasks

    check_split(args.split)
    tasks = load_tasks(args.tasks)
    collator = _collator(args.model, args.max_length, tasks) if args.tokens else None
    for number, task in enumerate(tasks):
        print("\n" * bool(number) + visible("\n".join(report(task))))
        for line in _lost(collator, task) if collator is not None else ():
            print(visible(f"note        {line}"))
        for example in task.splits.get(args.split, ())[: args.show]:
            tokens = _tokens(collator, task, example, args.split) if collator is not None else ()
            print(visible("\n".join([*shown(task, example, args.split), *tokens])))
    return 0


def _collator(model: str, max_length: int, tasks: Sequence[Task]) -> Collator:
    from peml.batches.collate import Collator
    from peml.model.model import load_language_model
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


def _tokens(collator: Collator, task: Task, example: Example, split: str) -> Iterator[str]:
    ids = collator.encode(task, example)
    prompt = ids.prompt if split == "train" else collator.prompt(task, example)
    for name, some in (("tokens", prompt), ("answer", ids.answer)):
        if some:
            tokens = collator.lm.tokenizer.convert_ids_to_tokens(list(some))
            yield f"  {name:<7} {' '.join(tokens)}"
