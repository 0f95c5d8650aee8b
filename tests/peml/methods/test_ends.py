"""Methods with adapters at the ends of branches: HyperFormer and UniPELT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from peml.methods.ends import find_ends
from peml.methods.gated_layers import GatedLayer
from peml.methods.hyperformer import HyperFormer
from peml.methods.method import Method
from peml.methods.unipelt import UniPelt
from peml.prefix.handle import attach
from peml.prefix.sites import find_sites
from prefixnas.base.errors import UserError
from tests.peml import zoo
from tests.peml.methods import promises

METHODS: dict[str, Method] = {
    "hyperformer": HyperFormer(reduction=8, task_width=5, hidden=6),
    "apart": HyperFormer(reduction=8, task_width=5, hidden=6, shared_branches=False),
    "unipelt": UniPelt(lora_rank=2, prompt_length=3, prefix_hidden=6, reduction=8),
}


def cases(*families: str) -> pytest.MarkDecorator:
    """HyperFormer on each of the families, UniPELT on those with an encoder."""
    pairs = [("hyperformer", kind) for kind in families]
    pairs += [("unipelt", kind) for kind in families if zoo.family(kind) != "decoder"]
    return pytest.mark.parametrize(("name", "kind"), [*pairs, ("apart", "t5")])


ENDS = {
    "llama": ("self_attn.o_proj", "mlp.down_proj"),
    "qwen3": ("self_attn.o_proj", "mlp.down_proj"),
    "phi": ("self_attn.dense", "mlp.fc2"),
    "gemma2": ("self_attn.o_proj", "mlp.down_proj"),
    "gpt2": ("attn.c_proj", "mlp.c_proj"),
    "bert": ("attention.output.dense", "output.dense"),
    "modernbert": ("attn.Wo", "mlp.Wo"),
    "t5": ("SelfAttention.o", "DenseReluDense.wo"),
    "mt5": ("SelfAttention.o", "DenseReluDense.wo"),
    "bart": ("self_attn.out_proj", "fc2"),
}


@pytest.mark.parametrize("kind", ENDS)
def test_branches_end_where_they_do(kind: str) -> None:
    model = zoo.build(kind)
    before = zoo.output(model, zoo.inputs(kind))
    ends = find_ends(model)
    layers = sum(site.kind != "cross" for site in find_sites(model))
    assert len(ends) == 2 * layers
    for attention, last in zip(ends[::2], ends[1::2], strict=True):
        assert attention.path.endswith(ENDS[kind][0]) and attention.branch == "attention"
        assert last.path.endswith(ENDS[kind][1]) and last.branch == "feed-forward"
        assert (attention.stack, attention.layer) == (last.stack, last.layer)
    assert len({end.path for end in ends}) == len(ends)
    assert torch.equal(zoo.output(model, zoo.inputs(kind)), before)


@cases("llama", "t5", "bert", "gpt2", "modernbert")
def test_the_start_is_near_the_base_and_detaching_gives_it_back(name: str, kind: str) -> None:
    promises.check_start_and_detach(METHODS[name], kind)


@cases("llama", "bert")
def test_a_seed_says_where_it_starts(name: str, kind: str) -> None:
    promises.check_reset(METHODS[name], kind)


@cases("llama", "t5", "bert")
def test_every_weight_learns_within_four_steps(name: str, kind: str) -> None:
    promises.check_gradients(METHODS[name], kind)


@cases("t5")
def test_tasks_differ_where_the_method_has_them(name: str, kind: str) -> None:
    promises.check_tasks(METHODS[name], kind)


@cases("llama", "t5", "bert", "gpt2")
def test_padding_changes_nothing(name: str, kind: str) -> None:
    promises.check_padding(METHODS[name], kind)


@cases("llama", "t5")
def test_writing_with_a_cache_equals_whole_passes(name: str, kind: str) -> None:
    promises.check_generation(METHODS[name], kind)


@cases("t5", "bert")
def test_what_was_saved_is_read_bit_for_bit(name: str, kind: str, tmp_path: Path) -> None:
    promises.check_saved(METHODS[name], kind, tmp_path)


@cases("llama", "bert")
def test_gradient_checkpointing_changes_no_gradient(name: str, kind: str) -> None:
    promises.check_checkpointing(METHODS[name], kind)


# Llama and BERT: 2 layers of width 32, adapters of width 4. T5: 3 and 2 layers. te = p = 5, h = 6.
D, M, TE, H = 32, 4, 5, 6
MAPS = (TE + 1) * (2 * D * M + D + M + 2 * D)


def stack(layers: int, *, shared: bool) -> int:
    seen = (3 if shared else 2) * TE
    body = layers * TE + (seen + 1) * H + (H + 1) * TE + 2 * TE
    return body + (2 * TE + MAPS if shared else 2 * MAPS)


@pytest.mark.parametrize(
    ("name", "kind", "weights"),
    [
        ("hyperformer", "llama", 2 * TE + stack(2, shared=True)),
        ("hyperformer", "t5", 2 * TE + stack(3, shared=True) + stack(2, shared=True)),
        ("apart", "llama", 2 * TE + stack(2, shared=False)),
        (
            "unipelt",
            "bert",
            2 * 2 * 2 * (D + D)  # LoRA
            + (3 * D + D * 6 + 6 + 2 * (6 + 1) * 2 * D)  # prefix
            + 2 * (2 * D * M + M + D)  # adapters
            + 2 * 4 * (D + 1),  # gates
        ),
    ],
)
def test_weights_are_those_of_the_formula(name: str, kind: str, weights: int) -> None:
    promises.check_counted(METHODS[name], kind, weights)


@pytest.mark.parametrize("name", ["hyperformer", "apart"])
@pytest.mark.parametrize("kind", ["llama", "bert", "t5"])
def test_hyperformer_is_a_plain_adapter_of_the_task_in_every_place(name: str, kind: str) -> None:
    """Adapters written out, with the weights that the network makes, compute the same."""
    lm, made = promises.attached(METHODS[name], kind)
    promises.train(lm, made)
    network: Any = made.weights  # type: ignore[attr-defined]
    plain = zoo.build(kind)
    for end in find_ends(plain):
        with torch.no_grad():
            weights = network.stacks[end.stack].weights_of(network.tasks[1], end)

        def adapt(module: Any, args: Any, y: Tensor, w: Any = weights) -> Tensor:
            down, d, up, u, gamma, beta = w
            z = y @ down.T + d
            z = 0.5 * z * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (z + 0.044715 * z**3)))
            z = z @ up.T + u
            centred = z - z.mean(-1, keepdim=True)
            scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
            return y + gamma * scaled + beta

        plain.get_submodule(end.path).register_forward_hook(adapt)
    expected = zoo.output(plain, zoo.inputs(kind))
    torch.testing.assert_close(promises.result(lm, "y"), expected, atol=1e-8, rtol=1e-8)


def test_unipelt_is_its_parts_times_their_gates(monkeypatch: pytest.MonkeyPatch) -> None:
    """For one row the gates are numbers: LoRA merged, a prefix set, an adapter hooked in."""
    lm, made = promises.attached(METHODS["unipelt"], "bert")
    promises.train(lm, made)
    layers: Any = made.all.layers  # type: ignore[attr-defined]
    gates: dict[tuple[int, str], Tensor] = {}
    plain_gate = GatedLayer.gate

    def record(layer: GatedLayer, name: str, x: Tensor, mask: Tensor | None) -> Tensor:
        place = [id(each) for each in layers].index(id(layer))
        gates[place, name] = plain_gate(layer, name, x, mask)
        return gates[place, name]

    monkeypatch.setattr(GatedLayer, "gate", record)
    given = zoo.inputs("bert", batch=1)
    found = promises.result(lm, "x", given)
    assert len(gates) == 8
    plain = zoo.build("bert")
    blocks = []
    for place, (site, layer) in enumerate(zip(find_sites(plain), layers, strict=True)):
        attention: Any = plain.get_submodule(site.path)
        with torch.no_grad():
            for i, name in enumerate(("query", "value")):
                getattr(attention, name).weight += gates[place, name] * layer.b[i] @ layer.a[i]
            hidden = torch.tanh(made.all.first(made.all.embedding))  # type: ignore[attr-defined]
            flat = layer.keys(hidden).view(3, 2, 4, 8)
            blocks.append(gates[place, "prefix"] * flat.permute(1, 2, 0, 3))

        def adapt(module: Any, args: Any, y: Tensor, layer: Any = layer, place: int = place) -> Any:
            return y + gates[place, "adapter"] * layer.up(F.relu(layer.down(y)))

        plain.get_submodule(f"encoder.layer.{place}.output.dense").register_forward_hook(adapt)
    with attach(plain, attention="concat").using(torch.stack(blocks)), torch.no_grad():
        expected = zoo.output(plain, given)
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)


def test_unipelt_refuses_decoders() -> None:
    with pytest.raises(UserError, match=r"UniPELT.*is for models with an encoder"):
        promises.attached(METHODS["unipelt"], "llama")


def test_unipelt_puts_lora_on_queries_and_values_of_fused_projections() -> None:
    """ModernBERT makes queries, keys and values by one module: the keys' part stays."""
    lm, made = promises.attached(METHODS["unipelt"], "modernbert")
    promises.train(lm, made)
    site = find_sites(lm.model)[0]
    module = lm.model.get_submodule(f"{site.path}.Wqkv")
    seen: list[Tensor] = []
    module.register_forward_hook(lambda module, args, output: seen.extend([args[0], output]))
    promises.result(lm)
    plain: Any = zoo.build("modernbert").get_submodule(f"{site.path}.Wqkv")
    change = (seen[1] - plain(seen[0])).unflatten(-1, (3, 32)).abs().amax(dim=(0, 1, 3))
    assert change[0] > 1e-3 and change[2] > 1e-3 and change[1] < 1e-12
