from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from peml.prefix.encoder import PrefixEncoder
from peml.prefix.handle import attach
from peml.prefix.sites import find_sites
from peml.prefix.starts import (
    DEFAULT_TEXT,
    STARTS,
    default_tokens,
    initialise,
    text_blocks,
    text_tokens,
)
from prefixnas.base.errors import UserError
from tests.peml import chats, zoo

TEXT = "good film : a b c"


def encoder_for(
    kind: str, length: int = 6, attention: str = "concat"
) -> tuple[PrefixEncoder, zoo.LanguageModel]:
    lm = zoo.language_model(kind)
    sites = find_sites(lm.model)
    return PrefixEncoder(length, 8, nn.LayerNorm(8), sites, attention=attention), lm


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("kind", ["llama", "t5", "bart", "bert", "gpt2"])
def test_same_seed_same_start_and_no_random_number_taken(kind: str, start: str) -> None:
    encoder, lm = encoder_for(kind)
    state = torch.get_rng_state()
    initialise(encoder, lm, start, seed=3, text=TEXT)
    assert torch.equal(torch.get_rng_state(), state)
    first = encoder.materialise()
    initialise(encoder, lm, start, seed=4, text=TEXT)
    other = encoder.embedding.clone()
    initialise(encoder, lm, start, seed=3, text=TEXT)
    assert torch.equal(encoder.materialise(), first)
    assert not torch.equal(encoder.embedding, other)
    assert bool(first.isfinite().all())


def test_zero_is_zero_and_random_is_of_order_one() -> None:
    encoder, lm = encoder_for("llama")
    initialise(encoder, lm, "zero", seed=0)
    assert not encoder.materialise().any()
    initialise(encoder, lm, "random", seed=0)
    assert 0.3 < float(encoder.materialise().std()) < 1.0


def test_a_start_forgets_the_one_before() -> None:
    encoder, lm = encoder_for("llama")
    initialise(encoder, lm, "text", seed=0, text=TEXT)
    initialise(encoder, lm, "zero", seed=0)
    assert not encoder.materialise().any()


@pytest.mark.parametrize("kind", ["llama", "qwen3", "mistral", "phi"])
def test_text_start_of_a_rotary_decoder_equals_reading_the_text_first(kind: str) -> None:
    lm, given = zoo.language_model(kind), zoo.inputs(kind)
    words = lm.tokenizer(TEXT)["input_ids"]
    batch = given["input_ids"].shape[0]
    front = torch.tensor(words).expand(batch, -1)
    whole = torch.cat([front, given["input_ids"]], dim=1)
    handle = attach(lm.model, attention="concat")
    blocks = text_blocks(lm, handle.sites, len(words), TEXT, moved=True)
    with handle.using(blocks):
        ours = zoo.output(lm.model, given)
    theirs = lm.model(input_ids=whole).logits[:, len(words) :]
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_text_start_of_t5_equals_reading_the_text_first() -> None:
    # With a cross prefix alone, the decoder sees the encoder's states of the text beside its own.
    lm, given = zoo.language_model("t5"), zoo.inputs("t5")
    words = lm.tokenizer(TEXT)["input_ids"]
    handle = attach(lm.model, find_sites(lm.model, ["cross"]), "concat")
    with handle.using(text_blocks(lm, handle.sites, len(words), TEXT)):
        ours = zoo.output(lm.model, given)
    encode = lm.model.get_encoder()
    front = encode(input_ids=torch.tensor([words])).last_hidden_state.expand(2, -1, -1)
    own = encode(input_ids=given["input_ids"]).last_hidden_state
    theirs = lm.model(
        encoder_outputs=(torch.cat([front, own], dim=1),),
        decoder_input_ids=given["decoder_input_ids"],
    ).logits
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_a_short_text_repeats_and_a_long_one_loses_its_beginning() -> None:
    lm = zoo.language_model("bert")
    sites = find_sites(lm.model)
    assert torch.equal(text_blocks(lm, sites, 5, "a b"), text_blocks(lm, sites, 5, "b a b a b"))
    assert torch.equal(text_blocks(lm, sites, 2, "f a b"), text_blocks(lm, sites, 2, "a b"))


def test_gradient_reaches_the_body_after_one_step() -> None:
    encoder, lm = encoder_for("llama")
    initialise(encoder, lm, "text", seed=0, text=TEXT)
    body = encoder.body
    assert isinstance(body, nn.LayerNorm)
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)
    target = torch.randn(encoder().shape, generator=torch.Generator().manual_seed(0))
    for step in range(2):
        optimizer.zero_grad()
        (encoder() - target).pow(2).mean().backward()
        assert body.weight.grad is not None
        assert bool(body.weight.grad.any()) == (step == 1)
        optimizer.step()


def test_unknown_starts_and_empty_texts_are_refused() -> None:
    encoder, lm = encoder_for("llama")
    with pytest.raises(UserError, match="did you mean 'random'"):
        initialise(encoder, lm, "randon", seed=0)
    with pytest.raises(UserError, match="no tokens"):
        text_blocks(lm, encoder.sites, 4, "  ")


def test_the_default_text_of_a_chat_model_is_a_system_turn() -> None:
    lm = chats.llama()
    words = [*DEFAULT_TEXT.replace(",", " , ").replace(".", " . ").split()]
    for length in (8, len(words) + 5, 40):
        ids = default_tokens(lm, length, chat=True)
        assert len(ids) == length
        inside = ids[3:-1]
        assert lm.tokenizer.convert_ids_to_tokens([*ids[:3], ids[-1]]) == [
            *("<s>", "<turn>", "system", "<end>")
        ]
        assert inside == (3 * text_tokens(lm, DEFAULT_TEXT))[-len(inside) :]
    whole: Any = lm.tokenizer.apply_chat_template(
        [{"role": "system", "content": DEFAULT_TEXT}], tokenize=True, return_dict=False
    )
    assert default_tokens(lm, len(whole), chat=True) == whole


def test_without_room_or_a_system_turn_the_default_text_stays_plain() -> None:
    lm = chats.llama()
    plain = text_tokens(lm, DEFAULT_TEXT)
    assert default_tokens(lm, 4, chat=True) == plain
    assert default_tokens(lm, 20, chat=False) == plain
    lm.tokenizer.chat_template = "{{ raise_exception('no system turn') }}"
    assert default_tokens(lm, 20, chat=True) == plain
