"""Seconds per training step, side by side in one process, in turn.

(a) PEFT LoRA with the stock loss on mixed, padded batches, as a user of transformers' Trainer runs
    it; (b) this project with LoRA alone; (c) with a prefix and no encoder, (d) the same
    in front of the text instead of beside it, (e) with a fixed prefix encoder, (f) searching.
All of them take the same number of examples of the same tasks per step, the same LoRA rank and
targets, and AdamW.

    python benchmarks/step_cost.py --model FOLDER --tasks DATA/sst2 DATA/rte DATA/cola DATA/mrpc
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import peft
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from peml.methods.method import RATE
from peml.methods.targets import attention_projections
from peml.model.load import load_language_model
from peml.objective.config import LanguageModelConfig
from peml.objective.objective import JointObjective
from peml.objective.options import LanguageModelOptions
from prefixnas.network.supernet import Supernet, build_child
from prefixnas.oneshot.alphas import AlphaOptimizer
from prefixnas.run.recipe import Recipe
from prefixnas.run.run import Budget, Run
from prefixnas.run.training import WeightOptimizer
from prefixnas.space.loading import load_space
from prefixnas.space.space import NO_MODULE

Step = Callable[[], None]


def stock_step(config: LanguageModelConfig) -> Step:
    """Build (a): one padded batch of all tasks' examples, the model's own loss, full logits."""
    lm = load_language_model(config.model, dtype=config.dtype)
    source = JointObjective(config, 1000, 0)
    source.reset(None, 0)
    lora = peft.LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=attention_projections(lm.model),
        task_type="CAUSAL_LM",
    )
    model = peft.get_peft_model(lm.model, lora)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), config.learning_rate or RATE)
    draws = source.draws("train")

    def step() -> None:
        rows = [
            source.collator.encode(task, example)
            for task, examples in next(draws)
            for example in examples
        ]
        width = max(len(row.prompt) + len(row.answer) for row in rows)
        ids = torch.full((len(rows), width), lm.tokenizer.pad_token_id)
        labels = torch.full((len(rows), width), -100)
        mask = torch.zeros((len(rows), width), dtype=torch.int64)
        for index, row in enumerate(rows):
            whole = (*row.prompt, *row.answer)
            ids[index, : len(whole)] = torch.tensor(whole)
            labels[index, len(row.prompt) : len(whole)] = torch.tensor(row.answer)
            mask[index, : len(whole)] = 1
        optimizer.zero_grad(set_to_none=True)
        model(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def our_step(config: LanguageModelOptions, folder: Path, module: str) -> Step:
    """Build one of ours: `module` is "none", "preembedd", "fixed" or "supernet"."""
    objective = JointObjective(config, 1000, 0)
    space = load_space(module if module in (NO_MODULE, "preembedd") else "default")
    run = Run(folder / config.prefix_attention / module, space, objective, Budget(1000, 0), 0)
    net: nn.Module | None = None
    if module == "preembedd":
        net = build_child(space, space.first({}), objective.width)
    elif module == "fixed":
        net = build_child(space, space.first({"activation": "tanh"}), objective.width)
    elif module == "supernet":
        net = Supernet(space, objective.width)
    run.reset(net)
    weights = WeightOptimizer(run, Recipe(), 1000)
    alphas = None
    if isinstance(net, Supernet):
        alphas = AlphaOptimizer(net, torch.optim.Adam(net.alphas.parameters(), 0.03))
    done = 0

    def step() -> None:
        nonlocal done
        weights.gradients(done, "train", module)
        if alphas is not None:
            alphas.step(entropy_weight=1.0)
            alphas.zero_grad()
        weights.step(done)
        done += 1

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="embedded:llama")
    parser.add_argument("--tasks", nargs="+", default=["embedded"])
    parser.add_argument("--batch-size", type=int, default=4, help="examples per task and step")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--processor-time", action="store_true", help="instead of the clock's: on a busy machine"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    clock = time.process_time if arguments.processor_time else time.perf_counter
    config = LanguageModelConfig(
        model=arguments.model, tasks=arguments.tasks, batch_size=arguments.batch_size
    )
    concat = replace(config, prefix_attention="concat")
    with tempfile.TemporaryDirectory() as folder:
        steps = {
            "(a) PEFT LoRA, stock loss, mixed batches": stock_step(config),
            "(b) ours, LoRA alone": our_step(config, Path(folder), "none"),
            "(c) ours, LoRA + prefix": our_step(config, Path(folder), "preembedd"),
            "(d) the same, concat": our_step(concat, Path(folder), "preembedd"),
            "(e) ours, LoRA + fixed prefix encoder": our_step(config, Path(folder), "fixed"),
            "(f) ours, searching": our_step(config, Path(folder), "supernet"),
        }
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        for turn in range(arguments.rounds + 1):
            for name, step in steps.items():
                began = clock()
                step()
                if turn:  # the first round warms up
                    seconds[name].append(clock() - began)
    stock, ours, *_ = seconds.values()
    table = Table("variant", "seconds per step (median)", "min", "ratio to (a)", "ratio to (b)")
    for name, times in seconds.items():
        ratios = [
            statistics.median(one / other for one, other in zip(times, others, strict=True))
            for others in (stock, ours)
        ]
        row = [f"{value:.3f}" for value in (statistics.median(times), min(times), *ratios)]
        table.add_row(name, *row)
    Console().print(table)
    print(
        f"{arguments.rounds} rounds, {len(config.tasks)} task sources, "
        f"{arguments.batch_size} examples per task and step, {arguments.threads} threads"
    )


if __name__ == "__main__":
    main()
