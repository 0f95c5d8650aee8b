"""Tiny random language models with a word-level tokenizer, for the tests of the data side."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from peml.model.model import LanguageModel
from peml.tasks.examples import Example
from peml.tasks.task import Task

WORDS = [
    *("<pad>", "<unk>", "<s>", "</s>", ":", "good", "bad", "very", "not", "so", "film", "plot"),
    *("a", "b", "c", "d", "e", "f", "yes", "no", "maybe", "0", "1", "2", "3", "4", "5", "."),
]


def tokenizer() -> PreTrainedTokenizerFast:
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "<unk>"))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
    )


def llama(seed: int = 0, **options: int) -> LanguageModel:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
        **{"max_position_embeddings": 64, **options},
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
    )
    model = LlamaForCausalLM(config).double().eval()
    return LanguageModel(model, tokenizer(), "decoder", "tiny-llama")


def t5(seed: int = 0) -> LanguageModel:
    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=len(WORDS),
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=3,
        dropout_rate=0.1,
        initializer_factor=2.0,
    )
    model = T5ForConditionalGeneration(config).double().eval()
    return LanguageModel(model, tokenizer(), "encoder-decoder", "tiny-t5")


def bert(seed: int = 0) -> LanguageModel:
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    return LanguageModel(BertModel(config).double().eval(), tokenizer(), "encoder", "tiny-bert")


def task_of(
    name: str,
    rows: list[tuple[str, str]],
    *,
    kind: str = "choice",
    choices: tuple[str, ...] = (),
    metrics: tuple[str, ...] = ("accuracy",),
    max_new_tokens: int | None = None,
) -> Task:
    """Make a task whose three splits hold the same (prompt, answer) rows."""

    def example(split: str, index: int, prompt: str, answer: str) -> Example:
        label: int | float | str = answer
        if kind == "choice":
            label = choices.index(answer)
        elif kind == "regression":
            label = float(answer)
        return Example(prompt, answer, label, f"{split}:{index}", choices)

    splits = {
        split: tuple(example(split, i, *row) for i, row in enumerate(rows))
        for split in ("train", "selection", "validation")
    }
    return Task(name, kind, choices, metrics, None, splits, max_new_tokens)  # type: ignore[arg-type]
