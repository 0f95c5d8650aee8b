from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    MistralConfig,
    MistralForCausalLM,
)

from peml.answers.choices import choice_scores, stems
from peml.batches.collate import Collator
from peml.model.model import LanguageModel
from peml.prefix.handle import attach
from peml.prefix.sites import block_shape, find_sites
from tests.peml import tiny

PROMPTS = ["a b c", "d", "a a a a a a a", "e f"]
SINGLE = ("bad", "good", "yes")
MIXED = ("bad", "very good", "very bad", "not so good film")


def task_of(*choices: str) -> Any:
    return tiny.task_of("t", [(prompt, choices[0]) for prompt in PROMPTS], choices=choices)


def gpt2() -> LanguageModel:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tiny.WORDS), n_embd=32, n_layer=2, n_head=4, n_positions=64)
    model = GPT2LMHeadModel(config).double().eval()
    return LanguageModel(model, tiny.tokenizer(), "decoder", "tiny-gpt2")


def mistral() -> LanguageModel:
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=len(tiny.WORDS),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=4,
        initializer_range=0.3,
    )
    model = MistralForCausalLM(config).double().eval()
    return LanguageModel(model, tiny.tokenizer(), "decoder", "tiny-mistral")


def bart() -> LanguageModel:
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=len(tiny.WORDS),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_position_embeddings=64,
        init_std=0.3,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        decoder_start_token_id=3,
    )
    model = BartForConditionalGeneration(config).double().eval()
    return LanguageModel(model, tiny.tokenizer(), "encoder-decoder", "tiny-bart")


@torch.no_grad()
def naive_score(lm: LanguageModel, prompt: str, choice: str) -> list[float]:
    """Log-probability of each token of a choice: one row, no padding, no cache."""
    tokenizer: Any = lm.tokenizer
    prompt_ids, ids = tokenizer(prompt)["input_ids"], tokenizer(choice)["input_ids"]
    if lm.family == "decoder":
        logits = lm.model(input_ids=torch.tensor([prompt_ids + ids]), use_cache=False).logits
        rows = logits[0, len(prompt_ids) - 1 : -1]
    else:
        start = lm.model.config.decoder_start_token_id
        rows = lm.model(
            input_ids=torch.tensor([prompt_ids]),
            decoder_input_ids=torch.tensor([[start, *ids[:-1]]]),
            use_cache=False,
        ).logits[0]
    return [float(row.log_softmax(-1)[token]) for row, token in zip(rows, ids, strict=True)]


@pytest.mark.parametrize("normalisation", ["sum", "mean"])
@pytest.mark.parametrize("choices", [SINGLE, MIXED], ids=["single", "mixed"])
@pytest.mark.parametrize("make", [tiny.llama, gpt2, mistral, tiny.t5, bart])
def test_equals_one_pass_per_choice(make: Any, choices: Any, normalisation: Any) -> None:
    lm = make()
    task = task_of(*choices)
    scores = choice_scores(Collator(lm), task, task.splits["train"], normalisation=normalisation)
    for prompt, row in zip(PROMPTS, scores, strict=True):
        tokens = [naive_score(lm, prompt, choice) for choice in choices]
        wanted = [sum(t) / (len(t) if normalisation == "mean" else 1) for t in tokens]
        assert row == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("make", [tiny.llama, tiny.t5])
def test_examples_with_their_own_choices(make: Any) -> None:
    lm = make()
    collator = Collator(lm)
    first = tiny.task_of("t", [("a b c", "bad")], choices=("bad", "very good"))
    second = tiny.task_of("t", [("d", "maybe")], choices=("maybe", "not so bad", "yes"))
    examples = [first.splits["train"][0], second.splits["validation"][0]]
    scores = choice_scores(collator, first, examples)
    assert [len(row) for row in scores] == [2, 3]
    for example, row in zip(examples, scores, strict=True):
        wanted = [sum(naive_score(lm, example.prompt, choice)) for choice in example.choices]
        assert row == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("make", [tiny.llama, gpt2, tiny.t5, bart])
def test_an_attached_prefix_is_read_once_by_every_choice(make: Any) -> None:
    lm = make()
    sites = find_sites(lm.model)
    kv_heads, head_dim = block_shape(sites)
    generator = torch.Generator().manual_seed(1)
    blocks = torch.randn(len(sites), 2, kv_heads, 3, head_dim, generator=generator).double()
    task = task_of(*MIXED)
    collator = Collator(lm)
    handle = attach(lm.model, sites)
    plain = choice_scores(collator, task, task.splits["train"])
    with handle.using(blocks):
        scores = choice_scores(collator, task, task.splits["train"])
        for prompt, row, without in zip(PROMPTS, scores, plain, strict=True):
            wanted = [sum(naive_score(lm, prompt, choice)) for choice in MIXED]
            assert row == pytest.approx(wanted, abs=1e-9)
            assert max(abs(a - b) for a, b in zip(row, without, strict=True)) > 1e-3


def forward_shapes(lm: LanguageModel) -> list[Any]:
    shapes: list[Any] = []

    def note(module: Any, args: Any, kwargs: Any) -> None:
        shapes.append(tuple(kwargs["input_ids"].shape))

    lm.model.register_forward_pre_hook(note, with_kwargs=True)
    return shapes


def test_one_token_choices_cost_one_pass_over_the_prompts() -> None:
    lm = tiny.llama()
    shapes = forward_shapes(lm)
    heads: list[Any] = []
    output: Any = lm.model.get_output_embeddings()
    output.register_forward_hook(lambda module, args, out: heads.append(tuple(out.shape)))
    task = task_of(*SINGLE)
    choice_scores(Collator(lm), task, task.splits["train"])
    assert shapes == [(4, 7)]
    assert heads == [(4, 1, len(tiny.WORDS))]


def test_longer_choices_read_only_their_different_beginnings() -> None:
    lm = tiny.llama()
    shapes = forward_shapes(lm)
    task = task_of(*MIXED)
    choice_scores(Collator(lm), task, task.splits["train"])
    # "very" serves two choices, "not so good" one: two rows for each of four prompts.
    assert shapes == [(4, 7), (8, 3)]


def test_the_encoder_of_an_encoder_decoder_runs_once() -> None:
    lm = tiny.t5()
    sizes: list[int] = []
    encoder: Any = lm.model.get_encoder()
    encoder.register_forward_hook(
        lambda module, args, out: sizes.append(out.last_hidden_state.shape[0])
    )
    task = task_of(*MIXED)
    choice_scores(Collator(lm), task, task.splits["train"])
    assert sizes == [4]


def test_stems() -> None:
    assert stems([(1,), (2, 3), (2, 4), (5, 6, 7)]) == [(2,), (5, 6)]


def test_no_gradient_is_kept() -> None:
    lm = tiny.llama()
    task = task_of(*MIXED)
    choice_scores(Collator(lm), task, task.splits["train"])
    assert all(parameter.grad is None for parameter in lm.model.parameters())
