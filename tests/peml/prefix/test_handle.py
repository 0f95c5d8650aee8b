from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from peml.prefix.handle import attach
from peml.prefix.kinds import ATTENTIONS
from peml.prefix.sites import find_sites
from peml.prefix.watch import watch
from prefixnas.base.errors import UserError
from tests.peml import zoo


@pytest.mark.parametrize("kind", zoo.SUPPORTED)
def test_without_a_prefix_the_model_is_untouched(kind: str, attention: str) -> None:
    model, given = zoo.build(kind), zoo.inputs(kind)
    before, implementation = zoo.output(model, given), model.config._attn_implementation
    handle = attach(model, attention=attention)
    assert torch.equal(zoo.output(model, given), before)
    with handle.using(zoo.random_blocks(handle.sites)):
        assert not torch.allclose(zoo.output(model, given), before)
    assert torch.equal(zoo.output(model, given), before)
    handle.set(zoo.random_blocks(handle.sites))
    handle.detach()
    assert torch.equal(zoo.output(model, given), before)
    assert model.config._attn_implementation == implementation


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", zoo.SUPPORTED)
def test_every_site_gets_a_gradient_and_changes_the_output(
    kind: str, checkpointing: bool, attention: str
) -> None:
    model, given = zoo.build(kind), zoo.inputs(kind)
    handle = attach(model, attention=attention)
    blocks = zoo.random_blocks(handle.sites).requires_grad_()
    with handle.using(blocks):
        reference = zoo.output(model, given)
        weights = torch.randn(reference.shape, generator=torch.Generator().manual_seed(3)).double()
        (reference * weights).sum().backward()
        expected, blocks.grad = blocks.grad, None
        if checkpointing:
            model.train().gradient_checkpointing_enable({"use_reentrant": False})
        (zoo.output(model, given) * weights).sum().backward()
    assert blocks.grad is not None
    assert expected is not None
    torch.testing.assert_close(blocks.grad, expected)
    per_block = blocks.grad.flatten(2).norm(dim=-1)
    assert bool((per_block > 1e-3 * per_block.max()).all()), per_block
    model.eval()
    with torch.no_grad():
        for site in range(len(handle.sites)):
            for part in (0, 1):
                other = blocks.detach().clone()
                other[site, part, :, 0] += 1
                with handle.using(other):
                    assert not torch.allclose(zoo.output(model, given), reference, atol=1e-6)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral", "phi", "gpt2"])
def test_a_decoder_prefix_equals_a_cache(kind: str) -> None:
    model, given = zoo.build(kind), zoo.inputs(kind)
    handle = attach(model, attention="concat")
    blocks = zoo.random_blocks(handle.sites)
    with handle.using(blocks):
        ours = zoo.output(model, given)
    handle.detach()
    batch, length = given["input_ids"].shape
    cache = DynamicCache()
    for layer, (key, value) in enumerate(blocks):
        cache.update(key.expand(batch, -1, -1, -1), value.expand(batch, -1, -1, -1), layer)
    given["attention_mask"] = torch.ones(batch, zoo.LENGTH + length, dtype=torch.long)
    if kind == "gpt2":  # has learned positions, of which a prefix must not take any
        given["position_ids"] = torch.arange(length).expand(batch, -1)
    theirs = model(**given, past_key_values=cache).logits
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("kind", ["llama", "phi"])
def test_the_text_behind_a_prefix_attends_to_itself_as_before(kind: str) -> None:
    model, given = zoo.build(kind), zoo.inputs(kind)
    plain = zoo.output(model, given)
    handle = attach(model, attention="concat")
    blocks = torch.zeros_like(zoo.random_blocks(handle.sites))
    with handle.using(blocks):
        moved = watch(model, given)
    still = watch(model, given)
    # A key's products with the other keys depend on differences of positions alone.
    scores = [call.key @ call.key.transpose(-1, -2) for call in (moved[0], still[0])]
    torch.testing.assert_close(*scores, atol=1e-5, rtol=1e-5)  # rotary angles are float32
    assert not torch.allclose(moved[0].key, still[0].key, atol=1e-3)
    assert torch.equal(zoo.output(model, given), plain)


def softmax(scores: Tensor) -> Tensor:
    weights = torch.exp(scores - scores.amax(-1, keepdim=True))
    return weights / weights.sum(-1, keepdim=True)


def attend(
    attention: str, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, prefix: Tensor
) -> Tensor:
    """Attention by the book, `[b, heads, t, d]`, with a prefix `[2, heads, l, d]`."""
    if attention == "parallel":
        text = softmax(query @ key.transpose(-1, -2) + bias) @ value
        return text + softmax(query @ prefix[0].transpose(-1, -2)) @ prefix[1]
    scores = torch.cat([query @ prefix[0].transpose(-1, -2), query @ key.transpose(-1, -2)], -1)
    scores = scores + nn.functional.pad(bias, (prefix.shape[2], 0))
    weights = softmax(scores)
    split = prefix.shape[2]
    return weights[..., :split] @ prefix[1] + weights[..., split:] @ value


def test_bert_self_attention_by_hand(attention: str) -> None:
    model, given = zoo.build("bert"), zoo.inputs("bert")
    given["attention_mask"] = torch.ones_like(given["input_ids"])
    given["attention_mask"][0, 5:] = 0
    handle = attach(model, attention=attention)
    blocks = zoo.random_blocks(handle.sites)
    seen: list[tuple[Tensor, Tensor]] = []
    layer = model.get_submodule(handle.sites[1].path)
    layer.register_forward_hook(lambda _, args, out: seen.append((args[0], out[0])))
    with handle.using(blocks):
        model(**given)
    hidden, result = seen[0]

    def heads(linear: str) -> Tensor:
        projected: Tensor = getattr(layer, linear)(hidden)
        return projected.unflatten(-1, (4, 8)).transpose(1, 2)

    bias = torch.zeros(2, 1, 1, 7).double()
    bias[0, ..., 5:] = -math.inf
    expected = attend(
        attention, heads("query") / math.sqrt(8), heads("key"), heads("value"), bias, blocks[1]
    )
    torch.testing.assert_close(result, expected.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("kind", ["encoder", "cross", "decoder"])
def test_t5_attention_by_hand(kind: str, attention: str) -> None:
    model, given = zoo.build("t5"), zoo.inputs("t5")
    handle = attach(model, find_sites(model, [kind]), attention)
    blocks = zoo.random_blocks(handle.sites)
    # The first layer of a stack computes the stack's position bias.
    layer = model.get_submodule(handle.sites[0].path)
    seen: list[tuple[Tensor, Tensor | None, Tensor]] = []
    layer.register_forward_hook(
        lambda _, args, kw, out: seen.append((args[0], kw.get("key_value_states"), out[0])),
        with_kwargs=True,
    )
    with handle.using(blocks):
        model(**given)
    hidden, source, result = seen[0]
    source = hidden if source is None else source

    def heads(linear: nn.Module, states: Tensor) -> Tensor:
        projected: Tensor = linear(states)
        return projected.unflatten(-1, (4, 12)).transpose(1, 2)

    queries, keys = hidden.shape[1], source.shape[1]
    bias = torch.zeros(1, 4, queries, keys).double()
    if kind != "cross":
        bias = layer.compute_bias(queries, keys)
    if kind == "decoder":
        bias = bias.masked_fill(torch.ones(queries, keys).triu(1).bool(), -math.inf)
    expected = attend(
        attention,
        heads(layer.q, hidden),
        heads(layer.k, source),
        heads(layer.v, source),
        bias,
        blocks[0],
    )
    torch.testing.assert_close(result, layer.o(expected.transpose(1, 2).flatten(2)))


CLOSE = {torch.float64: {"rtol": 1e-7, "atol": 1e-7}, torch.float32: {"rtol": 1e-4, "atol": 1e-4}}


def padded(kind: str) -> PreTrainedModel:
    """A model that can read padding: Gemma 2 itself gives NaN for it in float64."""
    model = zoo.build(kind)
    return model.float() if kind == "gemma2" else model


@pytest.mark.parametrize("kind", zoo.SUPPORTED)
def test_padding_on_the_right_changes_nothing(kind: str, attention: str) -> None:
    model, given = padded(kind), zoo.inputs(kind)
    handle = attach(model, attention=attention)
    with handle.using(zoo.random_blocks(handle.sites)):
        plain = zoo.output(model, given)
        ids = nn.functional.pad(given["input_ids"], (0, 4))
        longer = zoo.output(model, {**given, "input_ids": ids, "attention_mask": (ids > 0).long()})
    torch.testing.assert_close(longer[:, : plain.shape[1]], plain, **CLOSE[plain.dtype])


@pytest.mark.parametrize("kind", zoo.DECODERS)
def test_padding_on_the_left_changes_nothing(kind: str, attention: str) -> None:
    model, given = padded(kind), zoo.inputs(kind)
    handle = attach(model, attention=attention)
    with handle.using(zoo.random_blocks(handle.sites)):
        plain = zoo.output(model, given)
        ids = nn.functional.pad(given["input_ids"], (4, 0))
        mask = (ids > 0).long()
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        longer = zoo.output(
            model, {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        )
    torch.testing.assert_close(longer[:, 4:], plain, **CLOSE[plain.dtype])


def greedy(model: PreTrainedModel, given: dict[str, Tensor], steps: int) -> tuple[Tensor, Tensor]:
    """Generate without any cache, one full pass a token; also the logits of every step."""
    key = "decoder_input_ids" if model.config.is_encoder_decoder else "input_ids"
    tokens, steps_logits = given[key], []
    for _ in range(steps):
        logits = model(**{**given, key: tokens}, use_cache=False).logits[:, -1]
        tokens = torch.cat([tokens, logits.argmax(-1, keepdim=True)], dim=1)
        steps_logits.append(logits)
    return tokens, torch.stack(steps_logits)


@pytest.mark.parametrize("kind", [*zoo.DECODERS, *zoo.ENCODER_DECODERS])
def test_cached_generation_equals_full_passes(kind: str, attention: str) -> None:
    model, given = zoo.build(kind), zoo.inputs(kind)
    model.generation_config.eos_token_id = None
    if model.config.is_encoder_decoder:
        start = torch.full((2, 1), model.config.decoder_start_token_id)
        given["decoder_input_ids"] = start
    handle = attach(model, attention=attention)
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    with handle.using(zoo.random_blocks(handle.sites)), torch.no_grad():
        cached = model.generate(
            **given, **options, return_dict_in_generate=True, output_logits=True
        )
        tokens, logits = greedy(model, given, 6)
        beams = [
            model.generate(**given, **options, num_beams=3, use_cache=c) for c in (True, False)
        ]
    assert torch.equal(cached.sequences, tokens)
    # generate() hands out its logits in float32.
    torch.testing.assert_close(torch.stack(cached.logits).double(), logits, atol=1e-5, rtol=1e-5)
    assert torch.equal(*beams)


def test_generation_with_a_static_cache(attention: str) -> None:
    model, given = zoo.build("llama"), zoo.inputs("llama")
    handle = attach(model, attention=attention)
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    with handle.using(zoo.random_blocks(handle.sites)):
        static = model.generate(**given, **options, cache_implementation="static")
        assert torch.equal(static, model.generate(**given, **options))


def test_two_models_do_not_touch_each_other(attention: str) -> None:
    first, second, given = zoo.build("llama"), zoo.build("llama"), zoo.inputs("llama")
    plain = zoo.output(second, given)
    one, two = attach(first, attention=attention), attach(second, attention=attention)
    one.set(zoo.random_blocks(one.sites))
    assert torch.equal(zoo.output(second, given), plain)
    two.set(zoo.random_blocks(two.sites, seed=9))
    with_prefix = zoo.output(second, given)
    one.detach()
    assert torch.equal(zoo.output(second, given), with_prefix)
    assert torch.equal(zoo.output(first, given), plain)


@pytest.mark.parametrize("kind", ["llama", "t5", "bert"])
def test_a_handle_that_is_switched_is_one_of_the_other_kind(kind: str) -> None:
    given, read = zoo.inputs(kind), {}
    for attention in ATTENTIONS:
        handle = attach(zoo.build(kind), attention=attention)
        with handle.using(zoo.random_blocks(handle.sites)):
            read[attention] = zoo.output(handle.model, given)
    switched = attach(zoo.build(kind))
    plain = zoo.output(switched.model, given)
    for attention in ("concat", "parallel", "parallel", "concat"):
        switched.set(zoo.random_blocks(switched.sites))
        switched.switch(attention)
        assert switched.blocks is None
        assert torch.equal(zoo.output(switched.model, given), plain)
        with switched.using(zoo.random_blocks(switched.sites)):
            assert torch.equal(zoo.output(switched.model, given), read[attention])
    switched.detach()
    assert torch.equal(zoo.output(switched.model, given), plain)


def test_a_copy_has_a_prefix_of_its_own(attention: str) -> None:
    handle, given = attach(zoo.build("llama"), attention=attention), zoo.inputs("llama")
    plain, blocks = zoo.output(handle.model, given), zoo.random_blocks(handle.sites)
    copied = copy.deepcopy(handle)
    copied.detach()
    with handle.using(blocks):
        changed = zoo.output(handle.model, given)
        assert torch.equal(zoo.output(copied.model, given), plain)
    assert not torch.allclose(changed, plain)
    with attach(copied.model, attention=attention).using(blocks):
        assert torch.equal(zoo.output(copied.model, given), changed)


def test_using_nests_and_survives_an_error(attention: str) -> None:
    handle = attach(zoo.build("llama"), attention=attention)
    first, second = zoo.random_blocks(handle.sites), zoo.random_blocks(handle.sites, length=5)
    with handle.using(first):
        with pytest.raises(ZeroDivisionError), handle.using(second):
            _ = 1 / 0
        assert handle.blocks is first
    assert handle.blocks is None


def test_wrong_shapes_and_foreign_sites_are_refused(attention: str) -> None:
    model = zoo.build("llama")
    with pytest.raises(UserError, match="another model"):
        attach(model, find_sites(zoo.build("gpt2")))
    handle = attach(model, attention=attention)
    with pytest.raises(ValueError, match=r"expected \[2, 2, 2, 3, 12\]"):
        handle.set(torch.zeros(2, 2, 4, 3, 12))
    with pytest.raises(RuntimeError, match="attached already"):
        attach(model, attention=attention)


def test_checkpointing_that_loses_gradients_is_refused(attention: str) -> None:
    model = zoo.build("llama").train()
    model.gradient_checkpointing_enable({"use_reentrant": True})
    handle = attach(model, attention=attention)
    with pytest.raises(UserError, match="use_reentrant"):
        handle.set(zoo.random_blocks(handle.sites).requires_grad_())


def test_leaving_too_early_under_checkpointing_is_an_error_not_a_wrong_gradient(
    attention: str,
) -> None:
    model = zoo.build("llama").train()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    handle = attach(model, attention=attention)
    with handle.using(zoo.random_blocks(handle.sites).requires_grad_()):
        result = zoo.output(model, zoo.inputs("llama")).sum()
    with pytest.raises(torch.utils.checkpoint.CheckpointError):
        result.backward()


@pytest.mark.parametrize("kind", zoo.DECODERS)
@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("cached", [False, True])
def test_padding_on_the_left_takes_no_positions_of_its_own(
    kind: str, attention: str, cached: bool
) -> None:
    """A plain call says nothing of positions; each row computes what it does alone."""
    model, given = zoo.build(kind), zoo.inputs(kind)["input_ids"]
    handle = attach(model, attention=attention)
    mask = torch.ones_like(given)
    mask[0, :3] = 0
    with handle.using(zoo.random_blocks(handle.sites)):
        alone = zoo.output(model, {"input_ids": given[:1, 3:]})
        if cached:
            seen = {"input_ids": given[:, :5], "attention_mask": mask[:, :5]}
            cache = model(**seen, use_cache=True).past_key_values
            rest = {"input_ids": given[:, 5:], "attention_mask": mask, "past_key_values": cache}
            padded, alone = zoo.output(model, rest), alone[:, 2:]
        else:
            padded = model(input_ids=given, attention_mask=mask).logits[:, 3:]
    if attention == "parallel" and kind == "gemma2":
        assert padded[:1].isnan().all()  # as without a prefix: padding attends to nothing
        return
    torch.testing.assert_close(padded[:1], alone, atol=1e-5, rtol=1e-5)  # norms are in float32
