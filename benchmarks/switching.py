"""What it costs to answer a prompt of another task than the last one: six meanings of a switch.

The same prompts of one length, one at a time, each of another task than the one before. Each row is
one way to keep what was trained for several tasks: the seconds of the switch itself, and of the
first forward pass after it, where caches are cold. A shared adapter has nothing to switch.

    python benchmarks/switching.py
    python benchmarks/switching.py --model $MODELS/minilm
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import peft
import torch

from peml.methods.lora import Lora
from peml.methods.method import Setting, attach_method
from peml.methods.mtl_lora import MtlLora
from peml.methods.targets import attention_projections
from peml.model.load import load_language_model
from peml.model.model import LanguageModel
from peml.model.quiet import quiet_libraries
from peml.prefix.handle import attach
from peml.prefix.sites import find_sites
from prefixnas.report.grid import Grid, Number
from prefixnas.report.terminal import Terminal

RANK = 16
MS = 1000
WARM = 5
"""Switches that are not counted."""


@dataclass(frozen=True)
class Way:
    """A way to keep several tasks.

    Attributes:
        lm: The model that answers.
        switch: Called with the number of the task that comes next.
    """

    lm: LanguageModel
    switch: Callable[[int], object]


def adapters(model: str, tasks: int) -> tuple[LanguageModel, peft.PeftModel, peft.LoraConfig]:
    """Return a model with a stock PEFT LoRA for each task."""
    lm = load_language_model(model)
    config = peft.LoraConfig(r=RANK, target_modules=attention_projections(lm.model))
    wrapped = peft.PeftModel(lm.model, config, adapter_name="0")
    for task in range(1, tasks):
        wrapped.add_adapter(str(task), config)
    return lm, wrapped, config


def in_memory(model: str, tasks: int, folder: Path) -> Way:
    """All adapters in memory: PEFT's `set_adapter`."""
    lm, wrapped, _ = adapters(model, tasks)
    return Way(lm, lambda task: wrapped.set_adapter(str(task)))


def from_disk(model: str, tasks: int, folder: Path) -> Way:
    """One adapter in memory, the others in files that the system has in its cache."""
    lm, wrapped, _ = adapters(model, tasks)
    wrapped.save_pretrained(str(folder))
    for task in range(1, tasks):
        wrapped.delete_adapter(str(task))
    now = "0"

    def switch(task: int) -> None:
        nonlocal now
        wrapped.load_adapter(str(folder / str(task)), str(task))
        wrapped.set_adapter(str(task))
        wrapped.delete_adapter(now)
        now = str(task)

    return Way(lm, switch)


def merged(model: str, tasks: int, folder: Path) -> Way:
    """The adapter of the task in the weights: out with one, in with another."""
    lm, wrapped, _ = adapters(model, tasks)
    tuner = wrapped.base_model

    def switch(task: int) -> None:
        tuner.unmerge_adapter()  # type: ignore[operator]
        tuner.merge_adapter([str(task)])  # type: ignore[operator]

    tuner.merge_adapter(["0"])  # type: ignore[operator]
    return Way(lm, switch)


def own_prefix(model: str, tasks: int, folder: Path) -> Way:
    """A prefix for each task beside one LoRA."""
    lm = load_language_model(model)
    attach_method(Lora(lora_rank=RANK), lm, Setting())
    sites = find_sites(lm.model)
    handle = attach(lm.model, sites, "parallel")
    one = sites[0]
    shape = (len(sites), 2, one.kv_heads, 20, one.head_dim)
    blocks = [torch.randn(shape) for _ in range(tasks)]
    return Way(lm, lambda task: handle.set(blocks[task]))


def routed(model: str, tasks: int, folder: Path) -> Way:
    """One method with parts per task, MTL-LoRA: the task of the pass."""
    lm = load_language_model(model)
    names = tuple(map(str, range(tasks)))
    attach_method(MtlLora(lora_rank=RANK), lm, Setting(names))
    stack = ExitStack()

    def switch(task: int) -> None:
        stack.close()
        stack.enter_context(lm.on(names[task]))

    return Way(lm, switch)


def shared(model: str, tasks: int, folder: Path) -> Way:
    """PEML: one LoRA and one prefix for all tasks; there is nothing to switch."""
    way = own_prefix(model, 1, folder)
    way.switch(0)
    return Way(way.lm, lambda task: None)


WAYS: dict[str, Callable[[str, int, Path], Way]] = {
    "set_adapter, in memory": in_memory,
    "load from disk, cached": from_disk,
    "unmerge and merge": merged,
    "a prefix a task": own_prefix,
    "a task's index (MTL-LoRA)": routed,
    "shared by all (PEML)": shared,
}


def measure(way: Way, arguments: argparse.Namespace) -> tuple[list[float], ...]:
    """Return the seconds of switches, of the passes right after them, and of passes without one."""
    clock = time.process_time if arguments.processor_time else time.perf_counter
    order, task, tasks, length = random.Random(0), 0, arguments.tasks, arguments.length
    ids = torch.randint(5, 200, (1, length))
    mask = torch.ones_like(ids)
    found: tuple[list[float], ...] = ([], [], [])
    way.lm.model.train(False)
    with torch.inference_mode():
        for turn in range(arguments.times + WARM):
            task = (task + order.randrange(1, tasks)) % tasks
            marks = [clock()]
            way.switch(task)
            marks.append(clock())
            for _ in range(2):
                way.lm.model(input_ids=ids, attention_mask=mask)
                marks.append(clock())
            if turn >= WARM:
                for seconds, (before, after) in zip(found, pairwise(marks), strict=True):
                    seconds.append(after - before)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="embedded:llama")
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--length", type=int, default=128, help="tokens of a prompt")
    parser.add_argument(
        "--processor-time", action="store_true", help="instead of the clock's: on a busy machine"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    quiet_libraries()
    lines = []
    for name, make in WAYS.items():
        with tempfile.TemporaryDirectory() as folder:
            way = make(arguments.model, arguments.tasks, Path(folder))
            switches, first, again = measure(way, arguments)
        low, *_, high = statistics.quantiles(switches, n=10)
        middle = [statistics.median(seconds) * MS for seconds in (switches, first, again)]
        spread = f"{low * MS:.3f} - {high * MS:.3f}"
        lines.append([name, f"{middle[0]:.3f}", spread, *(f"{ms:.1f}" for ms in middle[1:])])
    heads = ("switch, ms", "p10 - p90", "pass after it", "pass")
    Terminal().print(Grid(["way", *map(Number, heads)], lines))
    print(
        f"medians of {arguments.times} switches among {arguments.tasks} tasks, batch 1, "
        f"{arguments.length} tokens, one thread"
    )


if __name__ == "__main__":
    main()
