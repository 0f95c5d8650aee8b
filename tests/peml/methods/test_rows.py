"""Methods that are rows of the input: MPT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from peml.batches.collate import Collator
from peml.methods.mpt import Mpt
from peml.methods.rows import inserted, leading, removed
from prefixnas.base.errors import UserError
from tests.peml import zoo
from tests.peml.methods import promises

METHOD = Mpt(prompt_length=3)
families = pytest.mark.parametrize("kind", ["llama", "t5", "bert", "gpt2"])


@pytest.mark.parametrize("kind", ["llama", "t5", "bert", "gpt2", "bart", "roberta", "gemma2"])
def test_detaching_gives_the_base_back(kind: str) -> None:
    promises.check_start_and_detach(METHOD, kind)


def test_a_seed_says_where_it_starts() -> None:
    promises.check_reset(METHOD, "llama")


@families
def test_every_weight_learns_within_four_steps(kind: str) -> None:
    promises.check_gradients(METHOD, kind)


def test_tasks_differ() -> None:
    promises.check_tasks(METHOD, "t5")


@pytest.mark.parametrize("kind", ["llama", "t5", "bert", "gpt2", "sliding", "roberta"])
def test_padding_changes_nothing(kind: str) -> None:
    promises.check_padding(METHOD, kind)


@pytest.mark.parametrize("kind", ["llama", "t5", "gpt2", "sliding"])
def test_writing_with_a_cache_equals_whole_passes(kind: str) -> None:
    promises.check_generation(METHOD, kind)


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_what_was_saved_is_read_bit_for_bit(kind: str, tmp_path: Path) -> None:
    promises.check_saved(METHOD, kind, tmp_path)


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_gradient_checkpointing_changes_no_gradient(kind: str) -> None:
    promises.check_checkpointing(METHOD, kind)


@pytest.mark.parametrize(
    ("method", "weights"),
    [
        (METHOD, 3 * 32 + 2 * (3 + 32)),
        (Mpt(prompt_length=5, prompt_rank=2), 5 * 32 + 2 * 2 * (5 + 32)),
    ],
)
def test_weights_are_those_of_the_formula(method: Mpt, weights: int) -> None:
    promises.check_counted(method, "llama", weights)


@pytest.mark.parametrize("kind", ["llama", "t5", "gpt2"])
def test_it_equals_pefts_multitask_prompt_tuning(kind: str) -> None:
    lm, made = promises.attached(METHOD, kind)
    promises.train(lm, made)
    config = peft.MultitaskPromptTuningConfig(
        num_virtual_tokens=3,
        num_tasks=2,
        num_ranks=1,
        num_transformer_submodules=1,
        task_type="SEQ_2_SEQ_LM" if kind == "t5" else "CAUSAL_LM",
    )
    stock: Any = peft.get_peft_model(zoo.build(kind), config).double()
    theirs = {name.split(".")[-1]: p for name, p in stock.named_parameters() if p.requires_grad}
    ours: Any = made
    with torch.no_grad():
        stock.prompt_encoder["default"].embedding.weight.copy_(ours.part.common)
        theirs["prefix_task_rows"].copy_(torch.stack([*ours.part.v]).mT)
        theirs["prefix_task_cols"].copy_(torch.stack([*ours.part.u]))
    given = zoo.inputs(kind)
    given["attention_mask"] = torch.ones_like(given["input_ids"])
    theirs_given = {**given, "task_ids": torch.ones(2, dtype=torch.long)}
    if kind == "t5":  # PEFT passes no decoder's ids on, but makes them of labels
        theirs_given["labels"] = theirs_given.pop("decoder_input_ids")
        given["decoder_input_ids"] = theirs_given["labels"].roll(1, dims=1)
        given["decoder_input_ids"][:, 0] = 0
    with torch.no_grad():
        expected = zoo.output(stock, theirs_given)
    if kind != "t5":
        expected = expected[:, 3:]
    torch.testing.assert_close(promises.result(lm, "y", given), expected, atol=1e-6, rtol=1e-6)


def test_a_trial_pass_reads_the_rows_of_the_task() -> None:
    """Rows of ones times a vector of the vocabulary: the token itself, in front."""
    lm, made = promises.attached(METHOD, "llama")
    rows: Any = made
    vectors: Any = lm.model.get_input_embeddings()
    tokens = zoo.inputs("llama")["input_ids"]
    front = torch.tensor([5, 9, 7])
    with torch.no_grad():
        rows.part.common.copy_(vectors.weight[front])
        for factor in (*rows.part.u, *rows.part.v):
            factor.fill_(1)
    both = torch.cat([front.expand(2, -1), tokens], dim=1)
    plain = zoo.output(zoo.build("llama"), {"input_ids": both})[:, 3:]
    torch.testing.assert_close(promises.result(lm), plain)


def test_the_window_keeps_room_for_the_rows() -> None:
    lm = zoo.language_model("llama")
    assert Collator(lm).max_length == 64
    assert Collator(lm, input_rows=3).max_length == 61
    promises.attach_method(METHOD, lm, promises.Setting(promises.TASKS))
    assert Collator(lm).max_length == 61
    assert Collator(lm, max_length=20).max_length == 20


def test_embeddings_in_the_place_of_ids_are_refused() -> None:
    lm, _ = promises.attached(METHOD, "llama")
    with pytest.raises(UserError, match="reads token ids"), lm.on("x"):
        lm.model(inputs_embeds=torch.zeros(1, 2, 32, dtype=torch.float64))


@settings(max_examples=60, deadline=None)
@given(
    masks=st.lists(st.integers(0, 4), min_size=1, max_size=4),
    length=st.integers(5, 8),
    count=st.integers(1, 3),
)
def test_rows_go_behind_the_padding_and_come_out_again(
    masks: list[int], length: int, count: int
) -> None:
    rows = torch.arange(len(masks) * length).view(len(masks), length)
    mask = torch.tensor([[0] * front + [1] * (length - front) for front in masks])
    assert leading(mask).tolist() == masks
    values = -torch.arange(1, count + 1)
    made: Tensor = inserted(rows, values, leading(mask))
    for old, new, front in zip(rows.tolist(), made.tolist(), masks, strict=True):
        assert new == [*old[:front], *values.tolist(), *old[front:]]
    back = removed(made.unsqueeze(-1).expand(-1, -1, 2), count, leading(mask))
    assert torch.equal(back, rows.unsqueeze(-1).expand(-1, -1, 2))
