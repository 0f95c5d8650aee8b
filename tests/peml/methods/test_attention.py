"""Methods that are terms of attention: PrefixMemory-Tuning, LLaMA-Adapter, HyperPrompt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor

from peml.methods.hyperprompt import HyperPrompt
from peml.methods.llama_adapter import LlamaAdapter
from peml.methods.method import Method
from peml.methods.prefix_memory import PrefixMemory
from peml.methods.projections import find_projections
from peml.prefix.attention import ModulePrefix
from peml.prefix.handle import attach
from peml.prefix.interception import intercept, own_attention
from peml.prefix.positions import rotary_modules
from peml.prefix.sites import find_sites
from peml.prefix.watch import watch
from prefixnas.base.errors import UserError
from tests.peml import zoo
from tests.peml.methods import promises

METHODS: dict[str, Method] = {
    "memory": PrefixMemory(),
    "full memory": PrefixMemory(memory="full", feature="gelu"),
    "rotated memory": PrefixMemory(rotated=True),
    "adapter": LlamaAdapter(prompt_length=3),
    "adapter of layers": LlamaAdapter(prompt_length=3, gate="layer", tanh=False),
    "hyperprompt": HyperPrompt(prompt_length=3, bottleneck=4, task_width=5, hidden=6),
    "shared hyperprompt": HyperPrompt(prompt_length=3, bottleneck=4, variant="share"),
    "separate hyperprompt": HyperPrompt(prompt_length=3, bottleneck=4, variant="separate"),
}
FAMILIES = ("llama", "t5", "bert", "gpt2")
MAIN = ("memory", "adapter", "hyperprompt")
VARIANTS = [(name, "llama") for name in METHODS if name not in MAIN]


def cases(*families: str) -> pytest.MarkDecorator:
    """Every variant on a Llama, and the main ones on each of the families."""
    pairs = [*[(name, kind) for name in MAIN for kind in families], *VARIANTS]
    return pytest.mark.parametrize(("name", "kind"), pairs)


@cases(*FAMILIES, "bart", "modernbert")
def test_the_start_is_the_base_or_not_as_said_and_detaching_gives_it_back(
    name: str, kind: str
) -> None:
    promises.check_start_and_detach(METHODS[name], kind)


@cases("llama")
def test_a_seed_says_where_it_starts(name: str, kind: str) -> None:
    promises.check_reset(METHODS[name], kind)


@cases("llama", "t5", "bert")
def test_every_weight_learns_within_four_steps(name: str, kind: str) -> None:
    promises.check_gradients(METHODS[name], kind)


@cases("t5")
def test_tasks_differ_where_the_method_has_them(name: str, kind: str) -> None:
    promises.check_tasks(METHODS[name], kind)


@cases(*FAMILIES, "sliding")
def test_padding_changes_nothing(name: str, kind: str) -> None:
    promises.check_padding(METHODS[name], kind)


@cases("llama", "t5", "gpt2")
def test_writing_with_a_cache_equals_whole_passes(name: str, kind: str) -> None:
    promises.check_generation(METHODS[name], kind)


@cases("t5")
def test_what_was_saved_is_read_bit_for_bit(name: str, kind: str, tmp_path: Path) -> None:
    promises.check_saved(METHODS[name], kind, tmp_path)


@cases("llama", "bert")
def test_gradient_checkpointing_changes_no_gradient(name: str, kind: str) -> None:
    promises.check_checkpointing(METHODS[name], kind)


# Llama: 2 layers of 4 heads of 12 (2 of keys and values), width 32. T5: 3 encoder, 2 decoder layers
# with cross-attention, so 7 attention layers of 4 heads of 12, 5 of them self-attention.
S, D = 2, 32
GLOBAL = 2 * 3 * D + 2 * 5 + S * 5 + 10 * 6 + 6 * 5 + 2 * 5 * D * 4 + 2 * 5 * 4 * 24


@pytest.mark.parametrize(
    ("name", "kind", "weights"),
    [
        ("memory", "llama", 2 * 4 * 12**2),
        ("full memory", "llama", 2 * 48**2),
        ("memory", "t5", 7 * 4 * 12**2),
        ("adapter", "llama", 2 * (3 * D + 4)),
        ("adapter of layers", "llama", 2 * (3 * D + 1)),
        ("adapter", "t5", 7 * (3 * D + 4)),
        ("hyperprompt", "llama", GLOBAL),
        ("shared hyperprompt", "llama", 2 * 3 * D + S * 2 * (D * 4 + 4 * 24)),
        ("separate hyperprompt", "llama", 2 * 3 * D + 2 * S * 2 * (D * 4 + 4 * 24)),
        ("shared hyperprompt", "t5", 2 * 3 * D + 5 * 2 * (D * 4 + 4 * 48)),
    ],
)
def test_weights_are_those_of_the_formula(name: str, kind: str, weights: int) -> None:
    promises.check_counted(METHODS[name], kind, weights)


# --- against other computations -----------------------------------------------------------------


@pytest.mark.parametrize("gate", ["layer", "head"])
def test_llama_adapter_equals_pefts_adaption_prompt(gate: Any) -> None:
    """PEFT has a gate of each layer without a tanh; one value of all heads is the same."""
    method = LlamaAdapter(prompt_length=3, gate=gate, tanh=False, adapter_layers=1)
    lm, made = promises.attached(method, "narrow")
    config = peft.AdaptionPromptConfig(adapter_len=3, adapter_layers=1, task_type="CAUSAL_LM")
    stock: Any = peft.get_peft_model(zoo.build("narrow"), config).double()
    theirs = {name.split(".")[-1]: p for name, p in stock.named_parameters() if p.requires_grad}
    ours = {name.split(".")[-1]: p for name, p in made.weights.named_parameters()}  # type: ignore[attr-defined]
    with torch.no_grad():
        ours["gate"].fill_(0.7)
        theirs["adaption_gate"].fill_(0.7)
        theirs["adaption_prompt"].copy_(ours["prompt"][None])
    given = zoo.inputs("narrow")
    expected = zoo.output(stock, given)
    assert not torch.allclose(expected, zoo.output(zoo.build("narrow"), given), atol=1e-3)
    torch.testing.assert_close(result_of(lm, given), expected, atol=1e-6, rtol=1e-6)
    assert sum(p.numel() for p in theirs.values()) == 3 * 32 + 1


def result_of(lm: Any, given: dict[str, Tensor]) -> Tensor:
    return promises.result(lm, "x", given)


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt2", "mt5", "bart", "bert"])
def test_hyperprompt_is_a_prefix_of_the_task_in_front_of_the_text(kind: str) -> None:
    """The same keys and values, set as a searched prefix is, compute the same."""
    lm, made = promises.attached(METHODS["hyperprompt"], kind)
    terms: Any = made.weights  # type: ignore[attr-defined]
    with torch.no_grad():
        fronts: list[ModulePrefix] = [term.front(1) for term in terms.values()]
    expected = promises.result(lm, "y")
    sites = [site for site in find_sites(zoo.build(kind)) if site.kind != "cross"]
    plain = zoo.build(kind)
    handle = attach(plain, sites, "concat")
    shape = (sites[0].kv_heads, 3, sites[0].head_dim)
    blocks = [
        torch.cat([p.key, p.value])
        .transpose(1, 2)
        .reshape(2, 3, shape[0], shape[2])
        .transpose(1, 2)
        for p in fronts
    ]
    with handle.using(torch.stack(blocks)):
        found = zoo.output(plain, zoo.inputs(kind))
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("kind", ["llama", "t5", "gpt2"])
def test_memory_is_added_by_the_formula(kind: str) -> None:
    """What one layer adds, from the projection's own output and a product written out."""
    lm, made = promises.attached(PrefixMemory(), kind)
    site = find_sites(lm.model)[0]
    term: Any = next(iter(made.weights.values()))  # type: ignore[attr-defined]
    torch.nn.init.normal_(term.memory)
    seen: dict[str, Tensor] = {}
    module = lm.model.get_submodule(site.path)

    def look(layer: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        outcome = own_attention(layer)(layer, *args, **kwargs)
        seen["out"] = outcome[0]
        return outcome

    undo = intercept([module], look)
    own = {"llama": "q_proj", "t5": "q", "gpt2": "c_attn"}[kind]
    hook = module.get_submodule(own).register_forward_hook(lambda m, a, out: seen.update(query=out))
    result_of(lm, zoo.inputs(kind))
    with_memory = seen["out"]
    with torch.no_grad():
        saved = term.memory.clone()
        term.memory.zero_()
    result_of(lm, zoo.inputs(kind))
    undo()
    hook.remove()
    heads, width = saved.shape[:2]
    q = seen["query"][..., : heads * width].unflatten(-1, (heads, width))
    for head in range(heads):
        expected = torch.nn.functional.elu(q[:, :, head]) @ saved[head]
        found = (with_memory - seen["out"])[:, :, head]
        torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("kind", zoo.SUPPORTED)
def test_projections_make_what_attention_gets(kind: str) -> None:
    """At position zero nothing is rotated: projecting what a layer reads gives its keys."""
    model = zoo.build(kind)
    sites = find_sites(model)
    made_by = find_projections(model, sites)
    given = zoo.inputs(kind)
    if rotary_modules(model):
        given["position_ids"] = torch.zeros_like(given["input_ids"])
    read: dict[Any, Tensor] = {}

    def note(module: Any, args: Any, output: Tensor) -> None:
        read.setdefault(module, args[0])

    for found in made_by:
        for projection in (found.query, found.key, found.value):
            assert projection is not None
            projection.linear.register_forward_hook(note)
    calls = watch(model, given)
    for call, found in zip(calls, made_by, strict=True):
        pairs = {"query": call.query, "key": call.key, "value": call.value}
        for name, expected in pairs.items():
            projection = getattr(found, name)
            torch.testing.assert_close(projection(read[projection.linear]), expected)


# --- what is refused, and how interceptions nest -------------------------------------------------


def test_layers_that_the_model_lacks_are_named() -> None:
    with pytest.raises(UserError, match=r"'adapter_layers': the model has 2 decoder layers, not 3"):
        promises.attached(LlamaAdapter(adapter_layers=3), "llama")
    with pytest.raises(UserError, match=r"no 'cross' attention"):
        promises.attached(PrefixMemory(attention_where=["cross"]), "llama")


@pytest.mark.parametrize("variant", ["global", "share"])
def test_prompts_need_no_projection_of_queries(variant: Any) -> None:
    """Of GPT-NeoX none can be found; a prompt is as wide as the model all the same."""
    model = zoo.build("neox")
    assert [made.query for made in find_projections(model, find_sites(model))] == [None, None]
    method = HyperPrompt(prompt_length=3, bottleneck=4, variant=variant)
    promises.check_start_and_detach(method, "neox")
    with pytest.raises(UserError, match="has no projections of keys and values"):
        promises.attached(LlamaAdapter(), "neox")


def test_kinds_of_attention_can_be_chosen() -> None:
    _, made = promises.attached(PrefixMemory(attention_where=["cross"]), "t5")
    assert len(made.parameters()) == 2
    _, made = promises.attached(HyperPrompt(variant="share"), "t5")
    assert sum(1 for name in made.state_dict() if "down" in name) == 5


def test_topmost_layers_read_the_prompts() -> None:
    lm, made = promises.attached(LlamaAdapter(adapter_layers=1), "t5")
    names = [site.path for site in find_sites(lm.model) if "." in site.path]
    kept = {name.rsplit(".", 1)[0].replace("/", ".") for name in made.state_dict()}
    # The last encoder layer, and both attentions of the last decoder layer.
    assert kept == {names[2], names[5], names[6]}


@pytest.mark.parametrize("first", [0, 1])
def test_interceptions_are_undone_in_any_order(first: int) -> None:
    model = zoo.build("llama")
    expected = zoo.output(model, zoo.inputs("llama"))
    modules = [model.get_submodule(site.path) for site in find_sites(model)]

    def doubled(module: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        output, weights = own_attention(module)(module, *args, **kwargs)
        return 2 * output, weights

    def count(module: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        counted.append(module)
        return own_attention(module)(module, *args, **kwargs)

    counted: list[Any] = []
    undo: list[Callable[[], None]] = [intercept(modules, count), intercept(modules, doubled)]
    undo.pop(first)()
    changed = zoo.output(model, zoo.inputs("llama"))
    assert torch.equal(changed, expected) is bool(first)
    assert len(counted) == (2 if first else 0)
    undo.pop()()
    assert torch.equal(zoo.output(model, zoo.inputs("llama")), expected)


def test_a_searched_prefix_stands_beside_what_leaves_keys_alone() -> None:
    lm, made = promises.attached(METHODS["memory"], "llama")
    promises.train(lm, made)
    alone = promises.result(lm)
    handle = attach(lm.model)
    blocks = zoo.random_blocks(handle.sites)
    with handle.using(blocks):
        together = promises.result(lm)
    assert not torch.allclose(together, alone, atol=1e-3)
    made.detach()
    plain = zoo.build("llama")
    with attach(plain).using(blocks), handle.using(blocks):
        torch.testing.assert_close(
            zoo.output(lm.model, zoo.inputs("llama")), zoo.output(plain, zoo.inputs("llama"))
        )
    assert torch.equal(
        zoo.output(lm.model, zoo.inputs("llama")),
        zoo.output(zoo.build("llama"), zoo.inputs("llama")),
    )


@pytest.mark.parametrize("variant", ["share", "separate"])
def test_maps_start_as_linear_layers_do(variant: str) -> None:
    method: Any = HyperPrompt(prompt_length=3, bottleneck=4, variant=variant)
    _, made = promises.attached(method, "llama")
    for name, weight in made.named().items():  # type: ignore[attr-defined]
        if not any(own in name.split(".") for own in ("down", "up")):
            continue
        for matrix in weight:  # [in, out], of keys and of values
            bound = len(matrix) ** -0.5
            assert 0.9 * bound < float(matrix.detach().abs().max()) <= bound


TUNED = HyperPrompt(prompt_length=3, bottleneck=4, variant="share", tune_base=True)


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_the_base_trains_with_the_prompts_and_comes_back(kind: str) -> None:
    promises.check_start_and_detach(TUNED, kind)
    promises.check_reset(TUNED, kind)


def test_a_tuned_base_is_counted_saved_and_learns_at_its_own_rate(tmp_path: Path) -> None:
    plain = zoo.language_model("llama")
    base = {id(weight): weight.numel() for weight in plain.model.parameters()}
    prompts = replace(TUNED, tune_base=False).size(plain, 2)
    promises.check_counted(TUNED, "llama", prompts + sum(base.values()))
    lm, made = promises.attached(TUNED, "llama")
    assert {group.learning_rate for group in made.groups()} == {None, 1e-4}
    assert all(promises.train(lm, made))
    promises.check_saved(TUNED, "llama", tmp_path)


def test_a_base_of_half_precision_is_not_tuned() -> None:
    lm = zoo.language_model("llama")
    lm.model.half()
    with pytest.raises(UserError, match="small steps are lost in"):
        promises.attach_method(TUNED, lm, promises.Setting(promises.TASKS))
