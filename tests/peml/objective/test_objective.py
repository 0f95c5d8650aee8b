"""None"""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from peml.answers.loss import answer_loss
from peml.objective.config import LanguageModelConfig
from peml.objective.objective import JointObjective
from peml.prefix.kinds import ATTENTIONS
from prefixnas.base.errors import UserError
from prefixnas.space.space import SearchSpace
from tests.peml.objective.built import (
    FAMILIES,
    GATED,
    SPACE,
    example_loss,
    gradients,
    off,
    ready,
)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("space", [SPACE, GATED], ids=lambda space: space.name)
def test_one_step_has_the_gradient_of_the_naive_joint_loss(
    family: str, space: SearchSpace, bench: Path
) -> None:
    """Eq. 4 with the encoder inside each example's forward pass, one example at a time."""
    objective, net = ready(bench, family, double=True, space=space)
    off(objective.lm.model)
    before = objective.state_dict()["samplers"]
    losses = objective.backward("train")
    joint = gradients(objective, net)

    objective.batches.samplers["train"].load_state_dict(before["train"])
    drawn = next(objective.draws("train"))
    assert [len(examples) for _, examples in drawn] == [2, 3]
    means = {
        task.name: torch.stack([example_loss(objective, task, e) for e in examples]).mean()
        for task, examples in drawn
    }
    (sum(means.values(), torch.zeros(())) / len(means)).backward()  # equal weight per task
    naive = gradients(objective, net)

    assert losses == pytest.approx({name: mean.item() for name, mean in means.items()}, rel=1e-9)
    for one, other in zip(joint, naive, strict=True):
        assert one.abs().max() > 0
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-10)


def test_the_encoder_runs_once_a_step(bench: Path) -> None:
    objective, net = ready(bench)
    calls = []
    net.register_forward_hook(lambda *_: calls.append(1))
    objective.backward("train")
    objective.backward("selection")
    assert len(calls) == 2


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("sampling", ["gamma", "round-robin"])
def test_parts_of_a_batch_give_the_gradient_and_the_draws_of_the_whole(
    family: str, size: int, sampling: str, bench: Path
) -> None:
    """With dropout everywhere, and batches that the parts do not divide."""
    found, losses, states = [], [], []
    for micro in (None, size):
        objective, net = ready(
            bench,
            family,
            double=True,
            lora_dropout=0.1,
            gamma=0.3,
            batch_size=7,
            sampling=sampling,
            micro_batch_size=micro,
            gradient_checkpointing=micro == 2,
        )
        torch.manual_seed(3)
        seen = [objective.backward("train") for _ in range(3)]  # gradients of three steps add up
        losses.append(seen)
        found.append(gradients(objective, net))
        states.append(torch.get_rng_state())
    assert torch.equal(*states)
    for one, other in zip(*losses, strict=True):
        assert [*one] == [*other]
        assert one == pytest.approx(other, rel=1e-9)
    for first, second in zip(*found, strict=True):
        assert first.abs().max() > 0
        torch.testing.assert_close(first, second, rtol=1e-8, atol=1e-11)


def test_a_model_whose_draws_cannot_be_split_is_refused(
    bench: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def noisy(*given: Any) -> Tensor:
        torch.rand(len(given[1]) + torch.initial_seed() % 2)
        return answer_loss(*given)

    monkeypatch.setattr("peml.objective.objective.answer_loss", noisy)
    objective, _ = ready(bench, micro_batch_size=3, batch_size=4, gamma=0.3)
    with pytest.raises(UserError, match=r"split over parts of a batch; leave micro_batch_size out"):
        objective.backward("train")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("space", [SPACE, GATED], ids=lambda space: space.name)
def test_gradient_checkpointing_gives_the_same_gradients(
    family: str, space: SearchSpace, bench: Path
) -> None:
    found = []
    for checkpointing in (False, True):
        objective, net = ready(
            bench,
            family,
            double=True,
            space=space,
            gradient_checkpointing=checkpointing,
            lora_dropout=0.1,
        )
        assert objective.lm.model.is_gradient_checkpointing is checkpointing
        torch.manual_seed(3)
        objective.backward("train")
        found.append(gradients(objective, net))
    for one, other in zip(*found, strict=True):
        assert one.abs().max() > 0
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("attention", "start"),
    [(kind.name, start) for kind in ATTENTIONS.values() for start in kind.starts],
)
def test_every_alpha_and_every_site_of_t5_gets_a_gradient(
    attention: str, start: str, bench: Path
) -> None:
    objective, net = ready(bench, "t5", prefix_attention=attention, prefix_start=start)
    assert [site.kind for site in objective.prefix.sites] == ["encoder"] * 2 + [
        "decoder",
        "cross",
    ] * 2
    if start != "random":  # the output layer starts at zero: the first step only moves that
        optimizer = torch.optim.SGD(objective.parameters(), lr=0.1)
        objective.backward("train")
        optimizer.step()
        optimizer.zero_grad()
        net.alphas.zero_grad()
    seen: list[Tensor] = []
    encoder = objective.prefix.encoder
    assert encoder is not None

    def watch(_: nn.Module, __: object, blocks: Tensor) -> None:
        blocks.register_hook(seen.append)

    encoder.register_forward_hook(watch)
    objective.backward("train")
    (gradient,) = seen  # [sites, 2, kv_heads, l, head_dim]
    assert (gradient.abs().amax(dim=(2, 3, 4)) > 0).all()
    for alpha in net.alphas:
        assert alpha.grad is not None
        assert (alpha.grad != 0).all()


def test_where_limits_the_sites(bench: Path) -> None:
    objective, _ = ready(bench, "t5", prefix_where=["cross"])
    assert {site.kind for site in objective.prefix.sites} == {"cross"}
    objective.backward("train")


@pytest.mark.parametrize("family", FAMILIES)
def test_evaluation_leaves_random_state_alone(family: str, bench: Path) -> None:
    objective, net = ready(bench, family, lora_dropout=0.3)
    objective.evaluate("validation")  # modules that are imported now may draw random names
    states = []
    again = {}
    for evaluated in (False, True):
        objective.reset(net, 0)
        torch.manual_seed(5)
        np.random.seed(5)
        random.seed(5)
        if evaluated:
            for split in ("validation", "selection"):
                objective.evaluate(split)  # type: ignore[arg-type]
        states.append((torch.get_rng_state().tolist(), np.random.rand(), random.random()))
        again[evaluated] = objective.backward("train")
    assert states[0] == states[1]
    assert again[False] == again[True]


def test_evaluation_knows_the_prefix(bench: Path) -> None:
    objective, net = ready(bench)
    seen = []
    net.register_forward_hook(lambda *_: seen.append(net.training))
    objective.evaluate("validation")
    assert seen == [False] and net.training


def test_a_run_goes_on_with_its_own_data_alone(bench: Path, tmp_path: Path) -> None:
    home = tmp_path / "mood"
    shutil.copytree(bench / "mood", home)
    config = LanguageModelConfig(model=str(bench / "llama"), tasks=[str(home)], dtype="float32")

    def begin() -> JointObjective:
        objective = config.build(total_steps=4, seed=0)
        objective.reset(None, seed=0)
        return objective

    state = begin().state_dict()
    begin().load_state_dict(state)
    for split in ("train", "validation"):
        path = home / f"{split}.jsonl"
        text = path.read_text()
        path.write_text(text.replace("film", "plot"))
        with pytest.raises(UserError, match="examples of task 'mood' are not those that the run b"):
            begin().load_state_dict(state)
        path.write_text(text)
    begin().load_state_dict(state)
