"""`peml generate`: let a trained model write."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from prefixnas.base.console import Parser, positive

HELP = "let a trained model write"


def main(argv: Sequence[str], prog: str) -> int:
    """Run the command."""
    parser = Parser(prog=prog, description=HELP)
    parser.add_argument("adapter", type=Path, metavar="RUN", help="run directory or adapter folder")
    parser.add_argument("prompt", nargs="*", help="prompts; none: one per line of stdin")
    parser.add_argument("--max-new-tokens", type=positive, default=32)
    parser.add_argument("--task", help="which task it is, where the method wants to know")
    args = parser.parse_intermixed_args(argv)

    from peml.adapters.load import load
    from peml.model.quiet import quiet_libraries

    quiet_libraries()
    adapted = load(args.adapter)
    adapted.check_generation()
    for prompt in args.prompt or (line.rstrip("\n") for line in sys.stdin):
        with adapted.lm.on(args.task) if args.task is not None else nullcontext():
            print(adapted.generate(prompt, max_new_tokens=args.max_new_tokens))
    return 0
