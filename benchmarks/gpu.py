"""Throughput and peak memory of a training step on one GPU; one table, in a few minutes.

Full fine-tuning and stock PEFT LoRA as a user of transformers writes them, and this project: LoRA
alone, with a prefix beside the text, with its encoder, searching; by flex attention, by flash
attention where flash-attn is installed, and on a base of 4 or 8 bits where bitsandbytes is. The
model is a Llama of 1.1 billion random weights (TinyLlama's shape), written to a temporary folder,
or the folder that is named; the data are prompts of one length, so that every row sees the same
tokens. A row that this machine cannot compute is said and left out.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --model FOLDER --length 1024 --batch-size 4
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import peft
import torch
from rich.console import Console
from rich.table import Table
from step_cost import our_step
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from peml.methods.targets import attention_projections
from peml.model.attention import Implementation
from peml.model.load import load_language_model
from peml.model.quantize import KINDS
from peml.objective.config import LanguageModelConfig
from prefixnas.base.errors import UserError

OTHERWISE = re.compile("^(concat|flex|flash), ")
"""What a name says besides the precision, in which stock LoRA is the one to compare with."""

Step = Callable[[], None]
GIB = 2**30


@dataclass(frozen=True)
class Row:
    """A line of the table: how its step is made, and under which options."""

    name: str
    make: Callable[[LanguageModelConfig, Path], Step]
    config: LanguageModelConfig


def random_llama(folder: Path) -> Path:
    """Write a model of TinyLlama's shape with random weights and the embedded tokenizer."""
    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=22,
        num_attention_heads=32,
        num_key_value_heads=4,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=3,
    )
    with torch.device("cuda"):
        model = LlamaForCausalLM(config)
    nn.Module.to(model, torch.bfloat16)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        with resources.as_file(resources.files("peml") / "embedded" / "llama" / name) as file:
            shutil.copy(file, folder / name)
    return folder


def task(folder: Path, words: int) -> Path:
    """Write 256 training examples of `words` words and an answer of one; a few to validate."""
    rng, texts = random.Random(0), ["good", "bad", "film", "plot", "review"]
    folder.mkdir()
    for split, count in (("train", 256), ("validation", 8)):
        rows = [
            {
                "input": " ".join(rng.choices(texts, k=words)),
                "choices": ["bad", "good"],
                "label": rng.choice(["bad", "good"]),
            }
            for _ in range(count)
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    return folder


def full(config: LanguageModelConfig, _: Path) -> Step:
    """Build full fine-tuning: float32 weights, AdamW on all of them, products in bfloat16."""
    lm = load_language_model(config.model, device="cuda", dtype="float32")
    lm.model.requires_grad_(True)
    return stock_step(lm.model, config)


def stock_lora(config: LanguageModelConfig, _: Path) -> Step:
    """Build stock PEFT LoRA on the attention projections of a frozen bfloat16 model."""
    lm = load_language_model(
        config.model, device="cuda", dtype=config.dtype, quantize=config.quantize
    )
    lora = peft.LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=attention_projections(lm.model),
        task_type="CAUSAL_LM",
    )
    wrapped = peft.get_peft_model(lm.model, lora)
    if config.gradient_checkpointing:
        lm.model.gradient_checkpointing_enable(  # type: ignore[no-untyped-call]
            {"use_reentrant": False}
        )
    return stock_step(wrapped, config)


def stock_step(model: nn.Module, config: LanguageModelConfig) -> Step:
    """Build a step with the model's own loss, on labels at the answers alone."""
    model.train()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, 1e-5)
    batches = stock_batches(config)
    bf16 = config.mixed_precision != "no"

    def step() -> None:
        ids, mask, labels = next(batches)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
            loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()

    return step


def stock_batches(
    config: LanguageModelConfig,
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield batches of as many tokens as ours: ids, mask and labels `[batch, length]`."""
    assert config.max_length is not None
    shape = (config.batch_size, config.max_length)
    while True:
        ids = torch.randint(10, 500, shape, device="cuda")
        labels = torch.full_like(ids, -100)
        labels[:, -2:] = ids[:, -2:]
        yield ids, torch.ones_like(ids), labels


def ours(module: str) -> Callable[[LanguageModelConfig, Path], Step]:
    """Return what builds a step of this project; see `our_step`."""
    return lambda config, folder: our_step(config, folder, module)


def rows(config: LanguageModelConfig) -> list[Row]:
    """Return the table's lines."""
    float32 = replace(config, dtype="float32", mixed_precision="no")
    less = replace(config, gradient_checkpointing=True)
    concat = replace(config, prefix_attention="concat")
    plain = [
        Row("full fine-tuning, bf16", full, config),
        Row("stock PEFT LoRA, bf16", stock_lora, config),
        Row("LoRA alone, bf16", ours("none"), config),
        Row("LoRA + prefix, bf16", ours("preembedd"), config),
        Row("LoRA + prefix, concat, bf16", ours("preembedd"), concat),
        Row("LoRA + fixed prefix encoder, bf16", ours("fixed"), config),
        Row("searching (PEML), bf16", ours("supernet"), config),
        Row("stock PEFT LoRA, bf16, checkpointing", stock_lora, less),
        Row("searching (PEML), bf16, checkpointing", ours("supernet"), less),
        Row("stock PEFT LoRA, float32", stock_lora, float32),
        Row("searching (PEML), float32", ours("supernet"), float32),
    ]
    return [*plain, *attending(config), *quantised(config)]


def attending(config: LanguageModelConfig) -> list[Row]:
    """Return the lines of other attention functions than SDPA."""
    asked: list[tuple[str, Implementation]] = [("flex", "flex_attention")]
    if find_spec("flash_attn"):
        asked.append(("flash", "flash_attention_2"))
    return [
        Row(
            f"LoRA + prefix, {short}, bf16",
            ours("preembedd"),
            replace(config, attn_implementation=name),
        )
        for short, name in asked
    ]


def quantised(config: LanguageModelConfig) -> list[Row]:
    """Return the lines of a quantised base, if bitsandbytes is there."""
    if not find_spec("bitsandbytes"):
        return []
    found = []
    for kind in KINDS:
        small = replace(config, quantize=kind)
        found += [
            Row(f"stock PEFT LoRA, {kind}", stock_lora, small),
            Row(f"LoRA + prefix, {kind}", ours("preembedd"), small),
            Row(f"searching (PEML), {kind}", ours("supernet"), small),
        ]
    return found


def measure(row: Row, steps: int) -> tuple[float, float]:
    """Return the median seconds of a step, and the peak of allocated memory in GiB."""
    with tempfile.TemporaryDirectory() as folder:
        step = row.make(row.config, Path(folder))
        for _ in range(3):
            step()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        seconds = []
        for _ in range(steps):
            began = time.perf_counter()
            step()
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
        return statistics.median(seconds), torch.cuda.max_memory_allocated() / GIB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a folder; left out: 1.1 billion random weights")
    parser.add_argument("--length", type=int, default=512, help="tokens of an example")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("gpu.py measures a GPU, and torch sees none here")
    table = Table("", "s a step", "tokens a second", "to stock LoRA", "peak GiB")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = LanguageModelConfig(
            model=arguments.model or str(random_llama(folder / "model")),
            tasks=[str(task(folder / "words", arguments.length - 4))],
            batch_size=arguments.batch_size,
            max_length=arguments.length,
        )
        found: dict[str, tuple[float, float]] = {}
        for row in rows(config):
            try:
                found[row.name] = measure(row, arguments.steps)
            except (RuntimeError, UserError) as error:
                print(row.name, "left out:", str(error).partition("\n")[0], flush=True)
                continue
            print(row.name, *(f"{value:.4f}" for value in found[row.name]), flush=True)
            gc.collect()
            torch.cuda.empty_cache()
    tokens = arguments.batch_size * arguments.length
    for name, (seconds, peak) in found.items():
        like = found.get(f"stock PEFT LoRA, {OTHERWISE.sub('', name.split(', ', 1)[1])}")
        rate, ratio = tokens / seconds, f"{seconds / like[0]:.2f}" if like else ""
        table.add_row(name, f"{seconds:.4f}", f"{rate:,.0f}", ratio, f"{peak:.2f}")
    Console().print(table)
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}; {arguments.steps} steps of "
        f"{arguments.batch_size} x {arguments.length} tokens; SDPA where the name says nothing else"
    )


if __name__ == "__main__":
    main()
