"""`peml generate`: let a trained model write."""

from __future__ import annotations

import sys
from argparse import SUPPRESS, Namespace
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from peml.commands.flags import add_adapter, loading
from peml.tasks.spec import CHATS, Chat
from prefixnas.base.console import Parser, positive
from prefixnas.base.errors import UserError
from prefixnas.commands.output import Output, add_output

if TYPE_CHECKING:
    from peml.adapters.adapted import Prompt
    from peml.adapters.manifest import Manifest
    from peml.tasks.files import Records

HELP = "let a trained model write"

NUMBERS = {
    "--max-new-tokens": "most tokens to write (32)",
    "--temperature": "with --do-sample: what logits are divided by",
    "--top-p": "with --do-sample: draw among the likeliest tokens of this probability",
    "--top-k": "with --do-sample: draw among so many of the likeliest tokens (50)",
    "--num-beams": "beginnings that are gone on with at a time (1)",
    "--seed": "of the draws (0)",
}


def parser(prog: str) -> Parser:
    """Return the command's parser."""
    parser = Parser(prog=prog, description=HELP)
    add_adapter(parser)
    parser.add_argument("prompt", nargs="*", help="prompts; none: standard input is one prompt")
    parser.add_argument(
        "--jsonl", action="store_true", help="standard input is JSONL; print it with 'generation'"
    )
    parser.add_argument("--task", help="put prompts, or records, into this task's template")
    parser.add_argument(
        "--chat",
        choices=CHATS,
        default="auto",
        help="auto: as in training, by the chat template or not; off: as text (auto)",
    )
    parser.add_argument("--batch-size", type=positive, default=8, help="prompts at a time (8)")
    parser.add_argument(
        "--do-sample", action="store_true", default=SUPPRESS, help="draw tokens, by the seed"
    )
    for flag, text in NUMBERS.items():
        parser.add_argument(flag, default=SUPPRESS, metavar="N", help=text)
    add_output(parser)
    return parser


def main(argv: Sequence[str], prog: str) -> int:
    """Run the command."""
    args = parser(prog).parse_intermixed_args(argv)
    output = Output.of(args)

    from peml.adapters.load import load
    from peml.answers.writing import Sampling
    from peml.commands.progress import counted
    from peml.model.quiet import quiet_libraries
    from peml.tasks.results import Results
    from prefixnas.base.options import FLAG, make, resolve

    quiet_libraries()
    known = {entry.name for entry in fields(Sampling)}
    given = {name: value for name, value in vars(args).items() if name in known}
    sampling = make(Sampling, resolve({"generation": Sampling}, [(FLAG, given)]))
    records, prompts, chat = _prompts(args)
    results = Results(None, records, ["generation"]) if args.jsonl else None
    adapted = load(args.adapter, **loading(args))
    of_task = nullcontext() if args.task is None else adapted.lm.on(args.task)
    with of_task, counted(len(prompts), "prompts", output) as progress:
        written = adapted.generate_all(
            prompts,
            batch_size=args.batch_size,
            chat=chat,
            warn=output.warn,
            progress=progress,
            **vars(sampling),
        )
    if results is not None and not output.json:
        results.write({"generation": written})
    else:
        pairs = zip(prompts, written, strict=True)
        rows: list[dict[str, Any]] = [{"prompt": p, "generation": text} for p, text in pairs]
        if results is not None:
            rows = results.rows({"generation": written})
        output.result({"rows": rows}, "\n".join(written))
    return 0


def _prompts(args: Namespace) -> tuple[Records, Sequence[Prompt], Chat]:
    """Return the records of standard input, or those that prompts stand for, and their prompts.

    With them comes whether conversations are read by a chat template, or as text.
    """
    from peml.adapters.manifest import read_manifest
    from peml.adapters.tasks import trained_task
    from peml.tasks.chat import has_turns
    from peml.tasks.files import Records, read_lines
    from peml.tasks.questions import asked, prompts_of
    from peml.tasks.templates import fields_of

    if args.jsonl and args.prompt:
        raise UserError("--jsonl reads standard input; leave the prompts out")
    manifest = read_manifest(args.adapter)
    _check_task(manifest, args.task)
    template, what = "{prompt}", "'peml generate' without --task"
    talks, chat = manifest.talks or manifest.silent, args.chat
    if args.task is not None:
        task = trained_task(manifest, args.task, args.adapter)
        template, what = task.template, f"the template of the task {task.name!r}"
        talks, chat = task.chat is not None, "off" if task.chat == "off" else args.chat
    if args.jsonl:
        records = read_lines(_standard_input())
        if talks or any(has_turns(row) for row in records.rows):
            return records, asked(records), chat
    else:
        names = ["prompt"] if talks else fields_of(template)
        if len(names) != 1:
            raise UserError(
                f"{what} uses the fields {', '.join(names)}: give records of them, with --jsonl"
            )
        texts = args.prompt or [_standard_input().removesuffix("\n")]
        records = Records([{names[0]: text} for text in texts], "the prompts")
    return records, asked(records) if talks else prompts_of(template, records, what), chat


def _check_task(manifest: Manifest, task: str | None) -> None:
    """Refuse prompts of no task where the method needs one."""
    if task is None and manifest.method is not None:
        method, setting = manifest.trained_method()
        if method.needs_task:
            listed = ", ".join(setting.tasks)
            raise UserError(f"method {method.label!r}: say with --task of which task ({listed})")


def _standard_input() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError:
        raise UserError("standard input: not UTF-8 text") from None
