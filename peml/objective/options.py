"""The options of the language-model objective, without the way to it; nothing heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prefixnas.base.options import Options, option

LONGEST = 10_000
"""The most virtual tokens of a prefix."""


@dataclass(frozen=True)
class LanguageModelOptions(Options):
    """A method and a prefix on one Hugging Face model, for many tasks; without the method's own."""

    model: str = option("embedded:llama", "hub id, folder, GGUF file, embedded:llama|t5")
    revision: str | None = option(
        None, "branch, tag or commit of a hub model; none: its main branch"
    )
    tasks: list[str] = option(["embedded"], "task files, data folders, embedded[:task]")
    method: str = option("lora", "way to fine-tune, as peml methods lists them", former="lora")
    order: Literal["parallel", "lora-first", "prefix-first"] = option(
        "parallel", "method and prefix together, or one after the other, the first then held"
    )
    prefix_length: int = option(20, "virtual tokens", at_least=1, at_most=LONGEST)
    prefix_width: int | None = option(
        None, "encoder width; none: the model's hidden size", at_least=1, at_most=100_000
    )
    prefix_start: Literal["random", "zero", "text"] | None = option(
        None, "where it starts; none: text, or for encoder-only models what peml.md says"
    )
    prefix_text: str | None = option(
        None, "text to start from, with prefix_start text; none: a short instruction"
    )
    prefix_attention: Literal["parallel", "concat"] = option(
        "parallel", "beside the text, through gates, or in front of it in one softmax"
    )
    prefix_where: list[Literal["encoder", "decoder", "cross"]] | None = option(
        None, "kinds of attention that read it; none: all"
    )
    learning_rate: float | None = option(
        None, "of the method's weights; none: its own, LoRA's is 2e-3", above=0, at_most=10
    )
    head_learning_rate: float = option(1e-2, "of encoder-only models' heads", above=0, at_most=10)
    prefix_learning_rate: float | None = option(
        None,
        "of the prefix and its encoder; none: learning_rate, with concat 3e-4",
        above=0,
        at_most=10,
    )
    gate_learning_rate: float | None = option(
        None,
        "of the head gates; none: 6 times learning_rate, by the number of layers",
        above=0,
        at_most=10,
    )
    rate_factor: float = option(
        1.0, "all learning rates above, given or left open, times this", above=0, at_most=1000
    )
    weight_decay: float = option(0.01, "AdamW's, on all trained weights", at_least=0, at_most=10)
    sampling: Literal["gamma", "round-robin", "temperature"] = option("gamma", "joint batches")
    gamma: float = option(
        0.1, "eq. 1: share of a task's examples in a batch, before the cap", above=0, at_most=1
    )
    temperature: float = option(2.0, "of temperature sampling", at_least=0.1, at_most=1000)
    batch_size: int = option(
        8, "most examples of one task in one step", at_least=1, at_most=100_000
    )
    micro_batch_size: int | None = option(
        None, "most of them to compute at once; none: all", at_least=1, at_most=100_000
    )
    max_length: int | None = option(
        256, "longest input in tokens; none: the model's window", at_least=2, at_most=10**7
    )
    train_limit: int | None = option(None, "most training examples of a task", at_least=1)
    eval_limit: int | None = option(None, "most examples of a task in an evaluation", at_least=1)
    shots: int = option(
        0, "training examples in front of each scored prompt", at_least=0, at_most=1000
    )
    num_beams: int = option(1, "generation tasks: beams, 1: greedy", at_least=1, at_most=1000)
    chat: Literal["auto", "off"] = option(
        "auto", "conversations: by the tokenizer's chat template, or as plain text"
    )
    pooling: Literal["mean", "cls"] = option("mean", "encoder-only models: input of the heads")
    gradient_checkpointing: bool = option(False, "recompute activations to save memory")
    mixed_precision: Literal["auto", "no", "bf16"] = option(
        "auto", "bf16: products in bfloat16, trained weights stay float32; auto: on GPUs"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = option("auto", "of the base model")
    shard: bool = option(False, "each process keeps a part of the base model's layers (FSDP)")
    attn_implementation: Literal["sdpa", "eager", "flash_attention_2", "flex_attention"] | None = (
        option(None, "transformers' attention function of the base model; none: its choice")
    )
    quantize: Literal["nf4", "int8"] | None = option(
        None, "the base model's linear layers to 4 or 8 bits, through bitsandbytes"
    )

    def steps_apart(self, steps: int) -> int:
        """Return how many of so many joint steps are the method's, beside no prefix that trains."""
        return 0 if self.order == "parallel" else steps // 2
