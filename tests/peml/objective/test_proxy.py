"""The cheaper version of a language-model problem, and two-stage search on it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import prefixnas.__main__
from peml.objective.config import LanguageModelConfig
from peml.objective.objective import JointObjective
from prefixnas.base.errors import UserError
from prefixnas.network.supernet import Supernet, build_child
from prefixnas.run.objective import Objective, fit_space
from prefixnas.space.loading import load_space
from prefixnas.space.nodes import Choice, Seq, Stack
from prefixnas.space.space import SearchSpace
from prefixnas.strategies.two_stage import TwoStage
from prefixnas.testing import ObjectiveCheck, StrategyCheck
from prefixnas.testing.objectives import PROMISES
from tests.peml.objective.built import open_gates
from tests.workbench import events

FAMILIES = ["llama", "t5", "bert"]
SPACE = SearchSpace("small", Stack(2, Seq("linear", Choice("f", ["relu", "tanh", "gelu"]))))
PROXY = {"layers": "1", "train": "8", "max_length": "24"}


def build(bench: Path, family: str) -> JointObjective:
    return LanguageModelConfig(
        model=str(bench / family),
        tasks=[str(bench / "mood"), str(bench / "order")],
        prefix_length=3,
        lora_rank=2,
        batch_size=4,
        max_length=48,
    ).build(20, 0)


def child(objective: Objective) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_child(SPACE, SPACE.first(), objective.width)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("promise", PROMISES)
def test_a_proxy_is_an_objective(promise: str, family: str, bench: Path) -> None:
    make: Callable[[], Objective] = lambda: build(bench, family).proxy(PROXY)  # noqa: E731
    getattr(ObjectiveCheck(make, steps=4), promise)()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_proxy_is_smaller_and_has_no_weights_of_its_own(family: str, bench: Path) -> None:
    whole = build(bench, family)
    proxy = whole.proxy(PROXY)
    assert len(proxy.prefix.sites) == len(whole.prefix.sites) // 2
    assert {site.path for site in proxy.prefix.sites} < {site.path for site in whole.prefix.sites}
    assert all(len(task.splits["train"]) == 8 for task in proxy.tasks)
    assert [t.splits["selection"] for t in proxy.tasks] == [
        t.splits["selection"] for t in whole.tasks
    ]
    assert proxy.collator.max_length == 24
    places = {p.data_ptr() for p in whole.lm.model.parameters() if not p.requires_grad}
    frozen = [p for p in proxy.lm.model.parameters() if not p.requires_grad]
    assert frozen
    assert all(p.data_ptr() in places for p in frozen)
    own = {id(weight) for group in whole.parameters() for weight in group["params"]}
    assert not own & {id(weight) for group in proxy.parameters() for weight in group["params"]}


@pytest.mark.parametrize("family", FAMILIES)
def test_one_does_not_see_what_is_trained_in_the_other(family: str, bench: Path) -> None:
    whole = build(bench, family)
    proxy = whole.proxy(PROXY)

    def trained(objective: Objective) -> list[dict[str, float]]:
        objective.reset(child(objective), 0)
        optimizer = torch.optim.AdamW(objective.parameters())
        losses = []
        for _ in range(3):
            torch.manual_seed(3)
            optimizer.zero_grad()
            losses.append(objective.backward())
            optimizer.step()
        return losses

    alone, cheap = trained(build(bench, family)), trained(build(bench, family).proxy(PROXY))
    assert trained(whole) == alone
    assert trained(proxy) == cheap
    assert trained(whole) == alone
    assert alone != cheap


@pytest.mark.parametrize("family", FAMILIES)
def test_without_settings_a_proxy_is_the_whole_problem(family: str, bench: Path) -> None:
    whole = build(bench, family)
    losses = []
    for objective in (whole, whole.proxy({})):
        objective.reset(child(objective), 0)
        torch.manual_seed(3)
        losses.append(objective.backward())
    assert losses[0] == losses[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_layer_keeps_its_gate(family: str, bench: Path) -> None:
    """The gates of the layers that are left are those of the same layers of the whole model."""
    space = SearchSpace(
        "gated",
        Seq("linear", "tanh"),
        [Stack("attention_layers", Choice("gate", ["on", "off"]), name="attention")],
        {"attention_layers": 1},
    )
    whole = build(bench, family)
    space = fit_space(space, whole)
    proxy = whole.proxy({"layers": "1"})
    net = Supernet(space, whole.width)
    proxy.reset(net, 0)
    open_gates(proxy)
    proxy.backward()
    reached = {
        decision.name
        for decision, alpha in zip(net.decisions, net.alphas, strict=True)
        if alpha.grad is not None and bool(alpha.grad.any())
    }
    paths = [site.path for site in whole.prefix.sites]
    assert reached == {f"attention{paths.index(site.path)}/gate" for site in proxy.prefix.sites}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layer": "1"}, "unknown setting 'layer': did you mean 'layers'"),
        ({"layers": "3"}, "layers is 3, the model has 2"),
        ({"layers": "one"}, "'layers' must be a whole number of at least 1, not 'one'"),
        ({"train": "0"}, "'train' must be a whole number"),
        ({"max_length": "49"}, "max_length is 49, the run has 48"),
        ({"max_length": "1"}, "max_length must be at least 2"),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_wrong_settings_are_refused(
    settings: dict[str, str], message: str, family: str, bench: Path
) -> None:
    with pytest.raises(UserError, match=message):
        build(bench, family).check_proxy(settings)


def test_two_stage_keeps_its_promises_on_a_language_model(bench: Path) -> None:
    strategy = TwoStage(proxy=["layers=1", "train=8"], proxy_share=0.7, shortlist=2)
    check = StrategyCheck(strategy, SPACE, lambda: build(bench, "llama"))
    for promise in ("architecture", "budget", "alphas", "same_seed", "resume", "selection"):
        getattr(check, promise)()


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_two_stage_on_the_wide_space(family: str, bench: Path) -> None:
    """Length, start, depth and width come from the second stage, alphas from the first."""
    space = load_space("wide")
    strategy = TwoStage(proxy=["layers=1"], proxy_share=0.6, shortlist=2)
    StrategyCheck(strategy, space, lambda: build_wide(bench, family)).architecture()


def build_wide(bench: Path, family: str) -> JointObjective:
    return LanguageModelConfig(
        model=str(bench / family), tasks=[str(bench / "mood")], lora_rank=2, batch_size=4
    ).build(20, 0)


def run(bench: Path, out: Path, *arguments: str) -> int:
    common = ["search", "--strategy", "two-stage", "--model", str(bench / "llama"), "--tasks"]
    common += [str(bench / "mood"), "--prefix-length", "3", "--lora-rank", "2"]
    common += ["--baseline", "none"]
    return prefixnas.__main__.main([*common, "--out", str(out), *arguments])


def test_the_command_line(bench: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "run")
        arguments = ["--proxy", "layers=1", "train=8", "--steps", "60", "--shortlist", "3"]
        assert run(bench, out, *arguments) == 0
        (told,) = events(out, "proxy")
        assert 0 < float(str(told["price"])) < 1
        assert "a step on the proxy counted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--proxy", "layrs=1"], "unknown setting 'layrs': did you mean 'layers'"),
        (["--proxy", "layers=7"], "layers is 7, the model has 2"),
        (["--shortlist", "40"], "40 architectures need at least 240 steps"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    message: str,
    bench: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(bench, tmp_path / "run", *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_the_skeleton_has_the_same_tensors(bench: Path) -> None:
    whole = build(bench, "llama")
    bare: dict[str, Tensor] = dict(whole.bare.named_parameters())
    assert not any("lora" in name for name in bare)
