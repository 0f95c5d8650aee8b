"""How near stock PEFT comes to a run that was exported to it, and how much of that is rounding.

The same prompts through `peml.load` and through `AutoPeftModelForCausalLM`, both in float32 and
both in float64: what is left in float64 is the export's, what float32 adds is the arithmetic's.

    peml export RUN OUT --format peft
    python benchmarks/export.py RUN OUT --tasks $DATA/sst2 $DATA/cola --examples 20
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from peft import AutoPeftModelForCausalLM
from torch import Tensor

import peml
from peml.batches.collate import Collator
from peml.model.quiet import quiet_libraries
from peml.tasks.load import load_tasks
from prefixnas.report.grid import Grid, Number
from prefixnas.report.terminal import Terminal

NEW_TOKENS = 8
GREEDY: dict[str, Any] = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "num_beams": 1}


def largest(left: list[Tensor], right: list[Tensor]) -> float:
    """Return the largest difference of two lists of logits."""
    pairs = zip(left, right, strict=True)
    return max(float((a.double() - b.double()).abs().max()) for a, b in pairs)


@torch.no_grad()
def answers(model: Any, prompts: list[Tensor]) -> tuple[list[Tensor], list[list[int]]]:
    """Return logits at all positions of each prompt, and the greedy tokens after it."""
    logits = [model(input_ids=ids).logits for ids in prompts]
    tokens = [
        model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **GREEDY)[0].tolist()
        for ids in prompts
    ]
    return logits, tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run or adapter folder")
    parser.add_argument("out", type=Path, help="what peml export --format peft wrote")
    parser.add_argument("--tasks", nargs="+", default=["embedded"])
    parser.add_argument("--examples", type=int, default=20, help="validation examples of a task")
    parser.add_argument("--task", help="the one of --task in peml export")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    quiet_libraries()
    found = {}
    for dtype in (torch.float32, torch.float64):
        adapted = peml.load(arguments.run, device="cpu", dtype="float32")
        model: Any = adapted.model
        stock = AutoPeftModelForCausalLM.from_pretrained(str(arguments.out), dtype=torch.float32)
        collator = Collator(adapted.lm)
        prompts = [
            torch.tensor([collator.encode(task, example).prompt])
            for task in load_tasks(arguments.tasks, eval_limit=arguments.examples)
            for example in task.splits["validation"][: arguments.examples]
        ]
        with ExitStack() as stack:
            if arguments.task:
                stack.enter_context(adapted.lm.on(arguments.task))
            found["peml.load", dtype] = answers(model.to(dtype), prompts)
        found["stock PEFT", dtype] = answers(stock.eval().to(dtype), prompts)
    single, double = torch.float32, torch.float64
    pairs = [
        (("stock PEFT", single), ("peml.load", single)),
        (("stock PEFT", double), ("peml.load", double)),
        (("peml.load", single), ("peml.load", double)),
        (("stock PEFT", single), ("stock PEFT", double)),
    ]
    lines = []
    for left, right in pairs:
        (a, mine), (b, other) = found[left], found[right]
        equal = sum(x == y for x, y in zip(mine, other, strict=True))
        names = [f"{name}, {str(dtype).removeprefix('torch.')}" for name, dtype in (left, right)]
        lines.append([*names, f"{largest(a, b):.1e}", f"{equal} of {len(mine)}"])
    heads = (Number("largest difference of logits"), Number("equal greedy answers"))
    Terminal().print(Grid(["", "against", *heads], lines))
    size = max(float(tensor.abs().max()) for tensor in found["peml.load", double][0])
    print(f"{len(prompts)} prompts; the largest logit is {size:.1f}")


if __name__ == "__main__":
    main()
