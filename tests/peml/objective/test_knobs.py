"""Length, start, kind of attention and gates of the prefix as decisions of a space."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

import peml
from peml.adapters.export import export
from peml.adapters.manifest import read_manifest
from peml.objective.objective import JointObjective
from peml.prefix.handle import attach
from peml.prefix.kinds import ATTENTIONS
from peml.prefix.starts import text_blocks
from prefixnas.__main__ import main
from prefixnas.base.errors import UserError
from prefixnas.network.relaxations import RELAXATIONS
from prefixnas.network.supernet import Supernet, build_child
from prefixnas.run.objective import fit_space
from prefixnas.space.architecture import Architecture
from prefixnas.space.loading import load_space
from prefixnas.space.nodes import Choice, Stack
from prefixnas.space.space import SearchSpace
from tests.peml import zoo
from tests.peml.objective.built import FAMILIES, GATED, config, open_gates, ready
from tests.workbench import SMALL, digest


def child(objective: JointObjective, space: SearchSpace, **settings: str) -> Any:
    space = fit_space(space, objective)
    torch.manual_seed(2)
    return build_child(space, space.first(settings), objective.width)


def test_sizes_are_the_models_attention_layers(bench: Path) -> None:
    counts = {
        family: JointObjective(config(bench, family), 1, 0).sizes["attention_layers"]
        for family in FAMILIES
    }
    assert counts == {"llama": 2, "t5": 2 + 2 * 2, "bert": 2}
    only = JointObjective(config(bench, "t5", prefix_where=["cross"]), 1, 0)
    assert only.sizes["attention_layers"] == 2


@pytest.mark.parametrize("relaxation", RELAXATIONS.names())
@pytest.mark.parametrize("family", FAMILIES)
def test_every_gate_receives_a_gradient(family: str, relaxation: str, bench: Path) -> None:
    objective, net = ready(bench, family, space=GATED)
    net.relaxation = RELAXATIONS.get(relaxation)()
    for _ in range(3):
        objective.backward("train")
    reached = {d.name: alpha.grad for d, alpha in zip(net.decisions, net.alphas, strict=True)}
    assert len(reached) == 1 + objective.sizes["attention_layers"]
    for name, gradient in reached.items():
        assert gradient is not None, name
        assert gradient.isfinite().all()
        assert gradient.any(), name


def test_a_closed_gate_takes_its_site_out_of_the_step(bench: Path) -> None:
    objective, net = ready(bench, space=GATED)
    net.keep("attention0/gate", "off")
    calls: list[Any] = []
    net.register_forward_hook(lambda *_: calls.append(1))
    objective.backward("train")
    assert objective.prefix.encoder is not None
    prefix = objective.prefix.encoder.prefix()
    assert prefix.gates.sites == [1]
    assert prefix.blocks is not None
    assert prefix.blocks.shape[0] == 1
    assert len(calls) == 2
    gradient = objective.prefix.encoder.output.weight.grad
    assert gradient is not None
    rows = gradient.unflatten(0, (2, -1)).abs().sum(dim=(1, 2))
    assert rows[0] == 0
    assert rows[1] > 0


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_only_open_sites_are_exported(
    family: str, attention: str, bench: Path, tmp_path: Path
) -> None:
    objective = JointObjective(config(bench, family, prefix_attention=attention), 2, 0)
    objective.reset(child(objective, GATED, **{"attention1/gate": "off"}), 0)
    open_gates(objective)
    objective.backward("train")
    objective.save(tmp_path / "adapter")
    paths = [site.path for site in objective.prefix.sites if site != objective.prefix.sites[1]]
    assert [site.path for site in read_manifest(tmp_path / "adapter").sites] == paths
    with safe_open(tmp_path / "adapter" / "prefix.safetensors", "pt") as file:
        assert file.get_slice("blocks").get_shape()[0] == len(paths)
        assert json.loads(file.metadata()["prefix"]) == {"attention": attention, "sites": paths}
    given = zoo.inputs("t5" if family == "t5" else "llama")
    prefix = objective.prefix.evaluated()
    with objective.prefix.handle.using(prefix.blocks, prefix.gates), torch.no_grad():
        trained = zoo.output(objective.lm.model.eval(), given)

    def check(model: Any) -> None:
        torch.testing.assert_close(zoo.output(model.eval(), given), trained, rtol=1e-4, atol=1e-4)

    check(peml.load(tmp_path / "adapter").model)
    for format in ("peml", "merged"):
        export(tmp_path / "adapter", tmp_path / format, format)
        with safe_open(tmp_path / format / "prefix.safetensors", "pt") as file:
            blocks = file.get_tensor("blocks")
            assert json.loads(file.metadata()["prefix"])["sites"] == paths
    check(peml.load(tmp_path / "peml").model)
    plain = objective.bare.__class__.from_pretrained(tmp_path / "merged")
    sites = [site for site in objective.prefix.sites if site.path in paths]
    attach(plain, sites, attention).set(blocks)
    check(plain)
    if (family, attention) == ("llama", "parallel"):
        export(tmp_path / "adapter", tmp_path / "stock", "peft")
        base = AutoModelForCausalLM.from_pretrained(tmp_path / "stock" / "merged")
        check(peft.PeftModel.from_pretrained(base, tmp_path / "stock"))
    elif family == "llama":
        with pytest.raises(UserError, match=r"reads a prefix in 1 of 2 layers; use .* 'peml'"):
            export(tmp_path / "adapter", tmp_path / "stock", "peft")
        assert not (tmp_path / "stock").exists()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_site_whose_head_gates_never_opened_is_not_saved(
    family: str, bench: Path, tmp_path: Path
) -> None:
    objective = JointObjective(config(bench, family), 2, 0)
    objective.reset(child(objective, PLAIN), 0)
    objective.save(tmp_path / "shut")
    assert read_manifest(tmp_path / "shut").sites == ()
    assert objective.prefix.encoder is not None and objective.prefix.encoder.head_gates is not None
    with torch.no_grad():
        objective.prefix.encoder.head_gates.weight[1, 0] = 0.5
    objective.save(tmp_path / "one")
    assert read_manifest(tmp_path / "one").sites == objective.prefix.sites[1:2]
    given = zoo.inputs("t5" if family == "t5" else "llama")
    prefix = objective.prefix.evaluated()
    with objective.prefix.handle.using(prefix.blocks), torch.no_grad():
        trained = zoo.output(objective.lm.model.eval(), given)
    loaded = zoo.output(peml.load(tmp_path / "one").model, given)
    torch.testing.assert_close(loaded, trained, rtol=1e-4, atol=1e-4)


def test_zeros_in_front_of_the_text_are_saved(bench: Path, tmp_path: Path) -> None:
    options = {**UNDECIDED, "prefix_start": "zero"}
    objective = JointObjective(config(bench, **options), 2, 0)
    objective.reset(child(objective, PLAIN), 0)
    objective.save(tmp_path / "adapter")
    assert read_manifest(tmp_path / "adapter").sites == objective.prefix.sites


@pytest.mark.parametrize("family", FAMILIES)
def test_without_an_open_gate_lora_is_left_alone(family: str, bench: Path, tmp_path: Path) -> None:
    objective = JointObjective(config(bench, family), 2, 0)
    objective.reset(child(objective, GATED, gate="off"), 0)
    torch.manual_seed(0)
    closed = objective.backward("train"), objective.evaluate("selection")
    objective.save(tmp_path / "adapter")
    assert read_manifest(tmp_path / "adapter").prefix_length == 0
    assert not (tmp_path / "adapter" / "prefix.safetensors").exists()
    assert peml.load(tmp_path / "adapter").prefix is None
    objective.reset(None, 0)
    torch.manual_seed(0)
    assert closed == (objective.backward("train"), objective.evaluate("selection"))


def test_a_supernet_with_open_gates_is_not_saved(bench: Path, tmp_path: Path) -> None:
    objective, _ = ready(bench, space=GATED)
    with pytest.raises(RuntimeError, match="cut a child"):
        objective.save(tmp_path / "adapter")


UNDECIDED: dict[str, Any] = {
    "prefix_length": 20,
    "prefix_start": None,
    "prefix_attention": "concat",
}
KNOBS = SearchSpace(
    "knobs",
    "linear",
    [Choice("length", [4, 2], "trial"), Choice("start", ["random", "zero", "text"], "trial")],
)


@pytest.mark.parametrize("start", ["random", "zero", "text"])
def test_length_and_start_are_what_the_module_says(start: str, bench: Path) -> None:
    objective = JointObjective(config(bench, **UNDECIDED), 2, 0)
    objective.reset(child(objective, KNOBS, length="2", start=start), 0)
    encoder = objective.prefix.encoder
    assert encoder is not None
    assert encoder().shape[3] == 2
    expected = {"zero": torch.zeros_like(encoder()).detach(), "random": None}
    expected["text"] = text_blocks(objective.lm, objective.prefix.sites, 2, "a b c")
    blocks = encoder().detach()
    if start == "zero":
        assert not blocks.any()
    elif start == "random":
        assert not encoder.start.any()
        assert blocks.any()
    else:
        assert torch.equal(blocks, encoder.start)
        assert blocks.any()
    with pytest.raises(UserError, match="prefix began with length 2, not 4"):
        objective.replace(child(objective, KNOBS, length="4", start=start))


PLAIN = SearchSpace("plain", "linear")
KINDS = SearchSpace("kinds", "linear", [Choice("attention", ["parallel", "concat"], "trial")])


def trained(objective: JointObjective, module: Any, adapter: Path) -> list[Any]:
    """Train for three steps and save; return all that shows how, with the rates of the parts."""
    objective.reset(module, 0)
    torch.manual_seed(3)
    groups = objective.parameters()
    optimizer = torch.optim.SGD(groups)
    seen: list[Any] = [[(group["lr"], len(group["params"])) for group in groups]]
    for _ in range(3):
        seen.append(objective.backward("train"))
        optimizer.step()
        optimizer.zero_grad()
    objective.save(adapter)
    return [*seen, objective.evaluate("selection"), digest(adapter)]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_kind_that_is_decided_is_the_kind_of_the_option(
    family: str, bench: Path, tmp_path: Path
) -> None:
    """Its start, learning rates, reading and manifest; whatever was decided in the trial before."""
    options: Mapping[str, Any] = {"prefix_start": None, "learning_rate": 0.05, "rate_factor": 0.5}
    expected = {}
    for kind in ATTENTIONS:
        alone = JointObjective(config(bench, family, **options, prefix_attention=kind), 9, 0)
        expected[kind] = trained(alone, child(alone, PLAIN), tmp_path / kind)
        assert read_manifest(tmp_path / kind).attention == kind
    assert expected["parallel"] != expected["concat"]
    objective = JointObjective(config(bench, family, **options), 9, 0)
    for trial, kind in enumerate(["concat", "parallel", "concat"]):
        module = child(objective, KINDS, attention=kind)
        assert trained(objective, module, tmp_path / f"trial {trial}") == expected[kind]
    with pytest.raises(UserError, match="prefix began with attention concat, not parallel"):
        objective.replace(child(objective, KINDS, attention="parallel"))
    objective.reset(None, 0)
    assert objective.prefix.handle.attention.name == "parallel"


def test_a_start_of_one_kind_alone_is_open_where_the_others_are_not(bench: Path) -> None:
    objective = JointObjective(config(bench, prefix_start=None), 1, 0)
    start = Choice("start", ["text", "zero"], "trial")
    for kinds, allowed in ((["concat"], True), (["concat", "parallel"], False)):
        space = SearchSpace("s", "linear", [Choice("attention", kinds, "trial"), start])
        if allowed:
            fit_space(space, objective)
            objective.reset(child(objective, space, start="zero"), 0)
            assert objective.prefix.handle.attention.name == "concat"
        else:
            with pytest.raises(UserError, match="unknown option 'zero'"):
                fit_space(space, objective)


def test_a_text_is_refused_where_a_kind_that_is_open_would_not_read_it(bench: Path) -> None:
    options = {"prefix_start": None, "prefix_text": "good film"}
    objective = JointObjective(config(bench, "bert", **options), 1, 0)
    fit_space(PLAIN, objective)
    with pytest.raises(UserError, match=r"'prefix_text'.*starts with 'zero'"):
        fit_space(KINDS, objective)


def test_every_kind_that_is_open_is_warned_of(bench: Path) -> None:
    objective = JointObjective(config(bench, "t5"), 1, 0)
    fit_space(KINDS, objective)
    (parallel, concat) = objective.warnings()
    assert "'parallel' attention" in parallel and "llama and mistral" in parallel
    assert "'concat' attention" in concat and "cross-attention" in concat


@pytest.mark.parametrize(
    ("knob", "said"),
    [
        (Choice("attention", ["paralel"], "trial"), "unknown option 'paralel': did you mean 'para"),
        (Choice("attention", ["parallel", "concat"]), "knob 'attention': alpha cannot decide it"),
        (Choice("lenght", [4], "trial"), "unknown knob 'lenght': did you mean 'length'"),
        (Choice("length", [4, "many"], "trial"), "knob 'length': .* not 'many'"),
        (Choice("length", [4, 2]), "knob 'length': alpha cannot decide it; say decided_by: trial"),
        (Choice("start", ["texts"], "trial"), "unknown option 'texts': did you mean 'text'"),
        (Choice("start", ["zero"], "trial"), "unknown option 'zero' \\(allowed: .*text"),
        (
            Stack(3, Choice("gate", ["on", "off"]), name="attention"),
            "unknown knob 'attention2/gate'",
        ),
        (Stack(2, Choice("gate", ["on", "of"]), name="attention"), "unknown option 'of'"),
    ],
)
def test_knobs_that_a_prefix_lacks(knob: Choice | Stack, said: str, bench: Path) -> None:
    objective = JointObjective(config(bench, prefix_length=20, prefix_start=None), 1, 0)
    with pytest.raises(UserError, match=said):
        fit_space(SearchSpace("s", "linear", [knob]), objective)


@pytest.mark.parametrize("option", [{"prefix_length": 7}, {"prefix_start": "text"}])
def test_a_knob_and_an_option_do_not_decide_the_same(option: dict[str, Any], bench: Path) -> None:
    options = {**UNDECIDED, **option}
    objective = JointObjective(config(bench, **options), 1, 0)
    with pytest.raises(UserError, match=f"key '{next(iter(option))}': the space decides it"):
        fit_space(KNOBS, objective)


def test_a_knob_and_an_option_do_not_decide_the_kind(bench: Path) -> None:
    objective = JointObjective(config(bench, **UNDECIDED), 1, 0)
    with pytest.raises(UserError, match=r"'prefix_attention': .*or set attention=\.\.\."):
        fit_space(KINDS, objective)


@pytest.mark.parametrize(
    ("family", "strategy", "more"),
    [
        ("llama", "darts", ["attention=concat", "attention1/gate=off"]),
        ("t5", "random", []),
        ("bert", "fixed", []),
    ],
)
def test_wide_runs(
    family: str, strategy: str, more: list[str], bench: Path, tmp_path: Path
) -> None:
    argv = ["search", "--space", "wide", "--strategy", strategy, "--model", str(bench / family)]
    argv += ["--tasks", str(bench / "mood"), "--set", "depth=2", "length=5", "width=identity"]
    argv += [*more, "--baseline", "none", "--out", str(tmp_path / "run")]
    sizes = [item for item in SMALL if item not in ("--prefix-length", "3")]
    assert main([*argv, *sizes]) == 0
    space = load_space(str(tmp_path / "run" / "space.yaml"))
    found = space.validate(Architecture.load(tmp_path / "run" / "architecture.yaml"))
    assert (found["depth"], found["length"]) == ("2", "5")
    manifest = read_manifest(tmp_path / "run")
    on = sum(found[name] == "on" for name in found if name.endswith("gate"))
    assert len(manifest.sites) == on
    assert manifest.attention == found["attention"]


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_every_alpha_of_wide_receives_a_gradient(attention: str, bench: Path) -> None:
    objective = JointObjective(config(bench, prefix_length=20, prefix_start=None), 1, 0)
    space = fit_space(load_space("wide"), objective)
    torch.manual_seed(0)
    settings = {"start": "random", "attention": attention}
    net = Supernet(space, objective.width, settings=settings)
    objective.reset(net, 0)
    open_gates(objective)
    objective.backward("train")
    for decision, alpha in zip(net.decisions, net.alphas, strict=True):
        assert alpha.grad is not None
        assert alpha.grad.abs().max() > 1e-6, decision.name
