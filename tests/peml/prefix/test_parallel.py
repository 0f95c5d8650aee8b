"""A prefix beside the text: what it adds, and that it leaves the text's attention alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from peml.prefix.attention import ModulePrefix
from peml.prefix.encoder import PrefixEncoder
from peml.prefix.handle import PrefixHandle, attach
from peml.prefix.parallel import attend_to_prefix
from peml.prefix.starts import initialise
from tests.peml import zoo


def fresh(kind: str, body: nn.Module | None = None) -> tuple[PrefixHandle, PrefixEncoder]:
    """A model with a prefix encoder that starts from a text."""
    lm = zoo.language_model(kind)
    handle = attach(lm.model)
    encoder = PrefixEncoder(4, 8, body, handle.sites)
    initialise(encoder, lm, "text", seed=0, text="good film")
    return handle, encoder.double()


@contextmanager
def registered(name: str, calls: list[str]) -> Iterator[None]:
    """An attention function of somebody else's, which looks at the module's configuration."""

    def theirs(module: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        calls.append(module.config._attn_implementation)
        return sdpa_attention_forward(module, *args, **kwargs)

    AttentionInterface.register(name, theirs)
    AttentionMaskInterface.register(name, sdpa_mask)
    try:
        yield
    finally:
        for interface in (AttentionInterface, AttentionMaskInterface):
            del interface._global_mapping[name]


@pytest.mark.parametrize("kind", zoo.SUPPORTED)
def test_a_fresh_prefix_leaves_every_output_as_it_is(kind: str) -> None:
    handle, encoder = fresh(kind)
    given, plain = zoo.inputs(kind), zoo.build(kind)
    prefix = encoder.prefix()
    assert prefix.blocks is not None and prefix.blocks[:, 0].any()
    with handle.using(prefix.blocks, prefix.gates):
        assert torch.equal(zoo.output(handle.model, given), zoo.output(plain, given))


# Soft-capping of Gemma 2's logits can't be had from an attention function built on SDPA.
@pytest.mark.parametrize("kind", [kind for kind in zoo.SUPPORTED if kind != "gemma2"])
def test_the_models_own_attention_gets_the_models_own_arguments(kind: str) -> None:
    model, given = zoo.build(kind), zoo.inputs(kind)
    calls: list[str] = []
    with registered("theirs", calls):
        model.set_attn_implementation("theirs")
        plain = zoo.output(model, given)
        number = len(calls)
        handle = attach(model)
        blocks = zoo.random_blocks(handle.sites)
        assert model.config._attn_implementation == "theirs"
        calls.clear()
        with handle.using(blocks):
            changed = zoo.output(model, given)
        assert calls == ["theirs"] * number
        with handle.using(blocks * torch.tensor([1.0, 0.0])[:, None, None, None]):
            assert torch.equal(zoo.output(model, given), plain)
        assert not torch.allclose(changed, plain)


@pytest.mark.parametrize("implementation", ["eager", "sdpa", "flex_attention"])
@pytest.mark.parametrize("kind", ["llama", "bart", "bert"])
@torch.no_grad()
def test_every_implementation_of_this_machine_reads_the_same_prefix(
    kind: str, implementation: str
) -> None:
    model, given = zoo.build(kind).float(), zoo.inputs(kind)
    handle = attach(model)
    blocks = zoo.random_blocks(handle.sites)
    with handle.using(blocks):
        expected = zoo.output(model, given)
    handle.detach()
    model.set_attn_implementation(implementation)
    plain = zoo.output(model, given)
    handle = attach(model)
    assert model.config._attn_implementation == implementation
    with handle.using(blocks):
        torch.testing.assert_close(zoo.output(model, given), expected, atol=1e-4, rtol=1e-4)
    handle.detach()
    assert torch.equal(zoo.output(model, given), plain)


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 3),
    kv_heads=st.integers(1, 3),
    groups=st.integers(1, 3),
    queries=st.integers(1, 5),
    length=st.integers(1, 6),
    scale=st.none() | st.floats(0.05, 2.0),
    gate=st.none() | st.floats(0.0, 1.0),
)
def test_the_addend_is_attention_to_the_prefix_alone(
    batch: int,
    kv_heads: int,
    groups: int,
    queries: int,
    length: int,
    scale: float | None,
    gate: float | None,
) -> None:
    torch.manual_seed(0)
    query = torch.randn(batch, kv_heads * groups, queries, 6).double()
    key, value = torch.randn(2, 1, kv_heads, length, 6).double()
    prefix = ModulePrefix(key, value, None if gate is None else torch.tensor(gate).double())
    addend = attend_to_prefix(query, prefix, scale)
    for head in range(kv_heads * groups):
        shared = head // groups  # query heads share a key/value head in order
        logits = query[:, head] @ key[0, shared].T * (6**-0.5 if scale is None else scale)
        expected = logits.softmax(-1) @ value[0, shared] * (1.0 if gate is None else gate)
        torch.testing.assert_close(addend[:, :, head], expected)


def test_a_site_reads_the_mean_of_equal_values_however_many_there_are() -> None:
    """The prefix's softmax is its own: what the text is or how long does not matter to it."""
    prefix = ModulePrefix(torch.randn(1, 2, 5, 6), torch.ones(1, 2, 5, 6))
    assert torch.allclose(attend_to_prefix(torch.randn(3, 4, 7, 6), prefix, None), torch.ones(()))


@pytest.mark.parametrize("kind", ["llama", "t5", "bert", "gpt2"])
def test_gates_first_then_the_output_layer_then_the_body(kind: str) -> None:
    """What gets a gradient step by step, from a text."""
    handle, encoder = fresh(kind, nn.Linear(8, 8))
    assert encoder.head_gates is not None
    parts = [encoder.head_gates.weight, encoder.output.weight, encoder.embedding]
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)
    for step in range(3):
        optimizer.zero_grad()
        prefix = encoder.prefix()
        with handle.using(prefix.blocks, prefix.gates):
            zoo.output(handle.model, zoo.inputs(kind)).pow(2).mean().backward()
        reached = [part.grad is not None and bool(part.grad.any()) for part in parts]
        assert reached == [True, step > 0, step > 1]
        if step == 0:
            assert bool(encoder.head_gates.weight.grad.all())  # type: ignore[union-attr]
        optimizer.step()


def test_a_gate_multiplies_what_its_head_reads() -> None:
    lm = zoo.language_model("llama")
    encoder = PrefixEncoder(4, 8, None, attach(lm.model).sites)
    initialise(encoder, lm, "random", seed=0)
    assert encoder.head_gates is not None
    with torch.no_grad():
        encoder.head_gates.weight.copy_(torch.tensor([[0.0, 0.5], [-3.0, 100.0]]))
    opened = torch.tanh(encoder.head_gates.weight)[:, :, None, None]
    blocks = encoder()
    ungated = PrefixEncoder(4, 8, None, encoder.sites, attention="concat")
    ungated.load_state_dict(encoder.state_dict(), strict=False)
    torch.testing.assert_close(blocks[:, 0], ungated()[:, 0])
    torch.testing.assert_close(blocks[:, 1], opened * ungated()[:, 1])
