"""How much of the prefix an attention site reads."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from peml.prefix.attention import PREFIX
from peml.prefix.gates import Gates
from peml.prefix.handle import PrefixHandle, attach
from tests.peml import zoo


def gates(handle: PrefixHandle, *weights: float | None) -> Gates:
    """A gate per site, the given weights in turn; None: fully open."""
    given = [weights[site % len(weights)] for site in range(len(handle.sites))]
    tensors = [None if w is None else torch.tensor(w, dtype=torch.float64) for w in given]
    return Gates(dict(enumerate(tensors))).leaves()


def with_gates(
    handle: PrefixHandle, kind: str, blocks: Tensor | None, chosen: Gates | None
) -> Tensor:
    with handle.using(blocks, chosen):
        return zoo.output(handle.model, zoo.inputs(kind))


@pytest.mark.parametrize("kind", zoo.SUPPORTED)
def test_an_open_gate_is_the_prefix_and_a_closed_one_is_none(kind: str, attention: str) -> None:
    handle = attach(zoo.build(kind), attention=attention)
    blocks = zoo.random_blocks(handle.sites)
    plain, full = (with_gates(handle, kind, b, None) for b in (None, blocks))
    torch.testing.assert_close(with_gates(handle, kind, blocks, gates(handle, 1.0)), full)
    closed = with_gates(handle, kind, blocks, gates(handle, 0.0))
    torch.testing.assert_close(closed, plain, rtol=1e-5, atol=1e-5)
    half = with_gates(handle, kind, blocks, gates(handle, 0.5))
    assert not torch.allclose(half, full)
    assert not torch.allclose(half, plain)


@pytest.mark.parametrize("kind", ["gpt2", "t5", "bart", "bert"])
def test_twice_half_a_prefix_is_a_prefix(kind: str) -> None:
    """Where positions do not count, every key twice with half the share changes nothing."""
    handle = attach(zoo.build(kind), attention="concat")
    blocks = zoo.random_blocks(handle.sites)
    once = with_gates(handle, kind, blocks, None)
    twice = torch.cat([blocks, blocks], dim=3)
    torch.testing.assert_close(with_gates(handle, kind, twice, gates(handle, 0.5)), once)


@pytest.mark.parametrize("kind", zoo.SUPPORTED)
def test_a_site_that_is_left_out_reads_nothing(kind: str, attention: str) -> None:
    handle = attach(zoo.build(kind), attention=attention)
    blocks = zoo.random_blocks(handle.sites)
    few = Gates(dict.fromkeys(range(1, len(handle.sites))))
    with handle.using(blocks[1:], few):
        first, *others = [handle.model.get_submodule(site.path) for site in handle.sites]
        assert not hasattr(first, PREFIX)
        assert all(hasattr(module, PREFIX) for module in others)
    closed = gates(handle, None)
    closed.weights[0] = torch.zeros((), dtype=torch.float64)
    torch.testing.assert_close(
        with_gates(handle, kind, blocks[1:], few),
        with_gates(handle, kind, blocks, closed),
        rtol=1e-5,
        atol=1e-5,
    )


EXACT = [(kind, weight, 1e-5) for kind in ("gpt2", "bart", "bert") for weight in (0.0, 0.3, 1.0)]
ROUNDED = [("llama", 0.3, 1e-3), ("gemma2", 0.3, 1e-3), ("t5", 1.0, 1e-3)]
"""Models with a norm that computes in float32, and the step that this allows."""


@pytest.mark.parametrize(("kind", "weight", "step"), [*EXACT, *ROUNDED])
def test_gradient_of_a_gate_by_finite_differences(
    kind: str, weight: float, step: float, attention: str
) -> None:
    handle = attach(zoo.build(kind), attention=attention)
    blocks = 0.3 * zoo.random_blocks(handle.sites)
    reference = torch.randn(zoo.output(handle.model, zoo.inputs(kind)).shape).double()

    def loss(change: float, site: int) -> tuple[Tensor, Gates]:
        chosen = gates(handle, weight)
        with torch.no_grad():
            chosen.soft[site] += change
        return (with_gates(handle, kind, blocks, chosen) * reference).sum(), chosen

    value, chosen = loss(0.0, 0)
    value.backward()
    for site, gate in enumerate(chosen.soft):
        below = -step if weight > 0 else 0.0
        numeric = (loss(step, site)[0] - loss(below, site)[0]) / (step - below)
        assert gate.grad is not None
        assert abs(gate.grad) > 1e-6
        torch.testing.assert_close(gate.grad, numeric, rtol=1e-2, atol=1e-3)
