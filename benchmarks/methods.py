"""Seconds of a training step under every method, in turn in one process, and tokens a second.

Every row takes the same examples of the same tasks a step, with the method's own options at their
defaults, AdamW, and no prefix, but for PEML, which searches the space `default` beside LoRA. On a
decoder-only model stock PEFT LoRA stands beside them, as in `step_cost.py`. Tokens are those of
prompts and answers, without padding.

    python benchmarks/methods.py
    python benchmarks/methods.py --model $MODELS/minilm --tasks $DATA/sst2 $DATA/rte --rounds 8
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from itertools import islice
from pathlib import Path

import torch
from step_cost import Step, our_step, stock_step

from peml.methods.method import METHODS
from peml.model.quiet import quiet_libraries
from peml.objective.config import LanguageModelConfig
from peml.objective.objective import JointObjective
from peml.objective.options import LanguageModelOptions
from prefixnas.base.errors import UserError
from prefixnas.report.grid import Grid, Number
from prefixnas.report.terminal import Terminal

STOCK, PEML, LORA, FULL = "stock PEFT LoRA", "PEML, searching", "lora", "full"
FROZEN = "frozen"
"""Trains nothing of a decoder."""


def config_of(method: str, arguments: argparse.Namespace) -> LanguageModelOptions:
    """Return the problem under a method."""
    return LanguageModelConfig.of(method)(
        model=arguments.model, tasks=arguments.tasks, batch_size=arguments.batch_size
    )


def steps_of(arguments: argparse.Namespace, folder: Path) -> dict[str, Step]:
    """Return a step by row; a method that does not fit the model is named and left out."""
    lora = LanguageModelConfig(
        model=arguments.model, tasks=arguments.tasks, batch_size=arguments.batch_size
    )
    steps = {PEML: our_step(lora, folder / "peml", "supernet")}
    if arguments.stock:
        steps[STOCK] = stock_step(lora)
    for name in arguments.methods or METHODS.names():
        if name == FROZEN:
            continue
        try:
            steps[name] = our_step(config_of(name, arguments), folder / name, "none")
        except UserError as error:
            print(f"left out: {error}")
    return steps


def tokens_a_step(arguments: argparse.Namespace) -> float:
    """Return the mean tokens of the joint batches that are measured."""
    objective = JointObjective(config_of(LORA, arguments), 1000, 0)
    objective.reset(None, 0)
    drawn = islice(objective.draws("train"), 1, arguments.rounds + 1)  # the first one warms up
    encode = objective.collator.encode
    rows = [encode(task, one) for step in drawn for task, examples in step for one in examples]
    rounds: int = arguments.rounds
    return sum(len(row.prompt) + len(row.answer) for row in rows) / rounds


def timed(steps: dict[str, Step], rounds: int, *, processor: bool) -> dict[str, list[float]]:
    """Return the seconds of every step by row, the first round left out."""
    clock = time.process_time if processor else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, step in steps.items():
            began = clock()
            step()
            if turn:
                seconds[name].append(clock() - began)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="embedded:llama")
    parser.add_argument("--tasks", nargs="+", default=["embedded"])
    parser.add_argument("--methods", nargs="+", help="all, if left out")
    parser.add_argument("--batch-size", type=int, default=4, help="examples per task and step")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--no-stock", dest="stock", action="store_false", help="without stock PEFT LoRA"
    )
    parser.add_argument(
        "--processor-time", action="store_true", help="instead of the clock's: on a busy machine"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    quiet_libraries()
    tokens = tokens_a_step(arguments)
    with tempfile.TemporaryDirectory() as folder:
        steps = steps_of(arguments, Path(folder))
        seconds = timed(steps, arguments.rounds, processor=arguments.processor_time)
    against = [name for name in (LORA, FULL, STOCK) if name in seconds]
    lines = []
    for name, times in seconds.items():
        middle = statistics.median(times)
        ratios = [
            statistics.median(one / other for one, other in zip(times, seconds[row], strict=True))
            for row in against
        ]
        numbers = [f"{middle:.3f}", f"{min(times):.3f}", f"{tokens / middle:,.0f}"]
        lines.append([name, *numbers, *(f"{ratio:.2f}" for ratio in ratios)])
    heads = ["s a step", "min", "tokens a second", *(f"to {row}" for row in against)]
    Terminal().print(Grid(["method", *map(Number, heads)], lines))
    print(
        f"{arguments.rounds} rounds, {arguments.batch_size} examples per task and step, "
        f"{tokens:,.0f} tokens a step, {arguments.threads} threads"
    )


if __name__ == "__main__":
    main()
