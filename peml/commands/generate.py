"""`peml generate`: let a trained model write."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from prefixnas.base.console import Parser, positive
from prefixnas.base.errors import UserError

HELP = "let a trained model write"


def main(argv: Sequence[str], prog: str) -> int:
    """Run the command."""
    parser = Parser(prog=prog, description=HELP)
    parser.add_argument("adapter", type=Path, metavar="RUN", help="run directory or adapter folder")
    parser.add_argument("prompt", nargs="*", help="prompts; none: one per line of stdin")
    parser.add_argument("--max-new-tokens", type=positive, default=32)
    args = parser.parse_intermixed_args(argv)

    from peml.adapters.export import load
    from peml.model.quiet import quiet_libraries

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
