from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peml.answers.loss import answer_loss
from peml.objective.config import LanguageModelConfig
from peml.objective.objective import JointObjective
from peml.prefix.kinds import ATTENTIONS
from peml.tasks.examples import Example
from peml.tasks.task import Task
from prefixnas.base.errors import UserError
from prefixnas.network.supernet import Supernet
from prefixnas.run.objective import fit_space
from prefixnas.space.nodes import Choice, Seq, Stack
from prefixnas.space.space import SearchSpace

FAMILIES = ["llama", "t5", "bert"]
CONCAT: dict[str, Any] = {"prefix_attention": "concat", "prefix_start": None}
SPACE = SearchSpace(
    "small",
    Stack(2, Seq("linear", Choice("activation", ["relu", "tanh", "gelu"]), "layer_norm")),
)
GATED = SearchSpace(
    "gated",
    Seq("linear", Choice("activation", ["relu", "tanh", "gelu"])),
    [Stack("attention_layers", Choice("gate", ["on", "off"]), name="attention")],
    {"attention_layers": 1},
)
"""A gate under alpha for every attention layer."""


def config(bench: Path, family: str = "llama", **options: Any) -> LanguageModelConfig:
    defaults: dict[str, Any] = {
        "model": str(bench / family),
        "tasks": [str(bench / "mood"), str(bench / "order")],
        "prefix_length": 3,
        "prefix_start": "random",
        "lora_rank": 2,
        "lora_dropout": 0.0,
        "batch_size": 4,
    }
    return LanguageModelConfig(**{**defaults, **options})


def ready(
    bench: Path,
    family: str = "llama",
    *,
    double: bool = False,
    space: SearchSpace = SPACE,
    **options: Any,
) -> tuple[JointObjective, Supernet]:
    """An objective with a supernet in its place, in float64 if exactness counts."""
    objective = JointObjective(config(bench, family, **options), total_steps=20, seed=0)
    torch.manual_seed(1)
    net = Supernet(fit_space(space, objective), objective.width)
    objective.reset(net, 0)
    with torch.no_grad():  # LoRA's B starts at zero, which would hide A's gradient
        for parameter in objective.method.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        open_gates(objective)
    if double:
        assert objective.prefix.encoder is not None
        for module in (objective.lm.model, objective.prefix.encoder, objective.heads):
            if module is not None:
                module.double()
    return objective, net


def open_gates(objective: JointObjective) -> None:
    """Open the head gates, which start at zero and hide the gradient of all behind them."""
    assert objective.prefix.encoder is not None
    if objective.prefix.encoder.head_gates is not None:
        nn.init.constant_(objective.prefix.encoder.head_gates.weight, 0.5)


def weights(objective: JointObjective, net: Supernet) -> list[nn.Parameter]:
    own = [p for group in objective.parameters() for p in group["params"]]
    return [*own, *net.alphas]


def gradients(objective: JointObjective, net: Supernet) -> list[Tensor]:
    found = []
    for parameter in weights(objective, net):
        assert parameter.grad is not None
        found.append(parameter.grad.clone())
        parameter.grad = None
    return found


def off(model: nn.Module) -> None:
    """Switch dropout off for good: rows in one batch and rows alone draw other masks."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "attention_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def example_loss(objective: JointObjective, task: Task, example: Example) -> Tensor:
    """The loss of one example alone: no padding, the whole vocabulary head, stock arguments."""
    encoder, lm, collator = objective.prefix.encoder, objective.lm, objective.collator
    assert encoder is not None
    ids = collator.encode(task, example)
    prefix = encoder.prefix()
    with objective.prefix.handle.using(prefix.blocks, prefix.gates):
        if lm.family == "encoder":
            assert objective.heads is not None
            tokens = torch.tensor([ids.prompt])
            hidden = lm.model(input_ids=tokens).last_hidden_state
            outputs = objective.heads(task.name, hidden, torch.ones_like(tokens))
            return F.cross_entropy(outputs, torch.tensor([int(example.label)]))
        answer = torch.tensor([ids.answer])
        if lm.family == "decoder":
            tokens = torch.tensor([ids.prompt + ids.answer])
            logits = lm.model(input_ids=tokens).logits[:, len(ids.prompt) - 1 : -1]
        else:
            prompt = torch.tensor([ids.prompt])
            logits = lm.model(input_ids=prompt, labels=answer).logits
        weights = collator.batch(task, [example]).weights
        assert weights is not None
        losses = F.cross_entropy(logits[0], answer[0], reduction="none") * weights[0]
        return losses.sum() / (weights == 1).sum()


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


def adalora(bench: Path, steps: int) -> tuple[JointObjective, Supernet]:
    objective = JointObjective(config(bench, method="adalora", lora_rank=4), steps, seed=0)
    torch.manual_seed(0)
    net = Supernet(SPACE, objective.width)
    objective.reset(net, 0)
    return objective, net


def ranks(objective: JointObjective) -> int:
    """Return how many singular values of all layers are left."""
    values = [p for n, p in objective.lm.model.named_parameters() if "lora_E" in n]
    return sum(int((value != 0).sum()) for value in values)


def test_adalora_really_drops_ranks_at_its_allocation_steps(bench: Path) -> None:
    steps = 20
    objective, _ = adalora(bench, steps)
    layers = sum("lora_E" in n for n, _ in objective.lm.model.named_parameters())
    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-2)
    left = []
    for step in range(steps):
        optimizer.zero_grad()
        objective.backward("train")
        optimizer.step()
        objective.stepped(step)
        left.append(ranks(objective))
    full, target = 6 * layers, 4 * layers  # one and a half times the rank at first
    assert left[: steps // 10] == [full] * (steps // 10)
    assert target < left[steps // 4] < full
    assert left[steps // 2 :] == [target] * (steps - steps // 2)


def test_the_orthogonality_term_is_in_the_gradient(bench: Path) -> None:
    objective, _ = adalora(bench, 20)
    off(objective.lm.model)
    state = objective.state_dict()["samplers"]["train"]
    objective.backward("train")
    factors = [
        (name, parameter)
        for name, parameter in objective.lm.model.named_parameters()
        if "lora_A" in name or "lora_B" in name
    ]
    # E starts at zero, so nothing but the term reaches A and B in the first step.
    term = torch.zeros(())
    for name, factor in factors:
        gram = factor @ factor.T if "lora_A" in name else factor.T @ factor
        term = term + (gram - torch.eye(len(gram))).square().sum().sqrt() / len(factors)
    wanted = torch.autograd.grad(0.5 * term, [factor for _, factor in factors])
    for (_, factor), gradient in zip(factors, wanted, strict=True):
        assert factor.grad is not None and gradient.abs().max() > 0
        torch.testing.assert_close(factor.grad, gradient, rtol=1e-4, atol=1e-7)
    assert state != objective.state_dict()["samplers"]["train"]


def names(objective: JointObjective, steps: int) -> list[tuple[str, ...]]:
    return [tuple(objective.backward("train")) for _ in range(steps)]


def test_gamma_takes_every_task_in_each_step(bench: Path) -> None:
    objective, _ = ready(bench)
    assert names(objective, 3) == [("mood", "order")] * 3


def test_round_robin_takes_turns(bench: Path) -> None:
    objective, _ = ready(bench, sampling="round-robin")
    assert names(objective, 4) == [("mood",), ("order",)] * 2


def test_temperature_draws_by_size(bench: Path) -> None:
    objective, _ = ready(bench, sampling="temperature", temperature=0.2)
    drawn = names(objective, 40)
    assert set(drawn) == {("mood",), ("order",)}
    # 36 and 22 training examples: their ratio to the fifth power is 12.
    assert drawn.count(("order",)) > 30


@pytest.mark.parametrize("split", ["train", "selection"])
def test_a_step_of_one_task_has_its_whole_gradient(split: Any, bench: Path) -> None:
    objective, net = ready(bench, double=True, sampling="round-robin")
    off(objective.lm.model)
    objective.backward(split)
    joint = gradients(objective, net)
    objective.batches.samplers[split] = objective.batches.sampler(split, 0)
    ((task, examples),) = next(objective.draws(split))
    torch.stack([example_loss(objective, task, e) for e in examples]).mean().backward()
    for one, other in zip(joint, gradients(objective, net), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-10)


def test_selection_batches_hold_no_training_example(bench: Path) -> None:
    objective, _ = ready(bench)
    drawn: dict[str, set[tuple[str, str]]] = {}
    for split in ("train", "selection"):
        draws = objective.draws(split)  # type: ignore[arg-type]
        drawn[split] = {
            (task.name, example.id)
            for _ in range(60)
            for task, examples in next(draws)
            for example in examples
        }
    assert len(drawn["train"]) == 22 + 36 and len(drawn["selection"]) == 2 + 4
    assert not drawn["train"] & drawn["selection"]


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


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"prefix_length": 0}, "'prefix_length'"),
        ({"lora_rank": -1}, "'lora_rank'"),
        ({"batch_size": -1}, "'batch_size'"),
        ({"learning_rate": 0.0}, "'learning_rate'"),
        ({"tasks": []}, "'tasks'"),
        ({"max_length": 2}, "max_length"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], said: str, bench: Path) -> None:
    with pytest.raises(UserError, match=said):
        JointObjective(replace(config(bench), **options), total_steps=4, seed=0)


def test_each_part_has_its_learning_rate(bench: Path) -> None:
    objective, _ = ready(
        bench,
        "bert",
        learning_rate=0.1,
        prefix_learning_rate=0.2,
        head_learning_rate=0.3,
        gate_learning_rate=0.4,
    )
    assert objective.prefix.encoder is not None and objective.heads is not None
    rates = {id(p): g["lr"] for g in objective.parameters() for p in g["params"]}
    assert {rates[id(p)] for p in objective.method.parameters()} == {0.1}
    assert {rates[id(p)] for p in objective.heads.parameters()} == {0.3}
    trained = dict(objective.prefix.encoder.named_parameters())
    assert rates[id(trained.pop("head_gates.weight"))] == 0.4
    assert {rates[id(p)] for n, p in trained.items() if "alphas" not in n} == {0.2}
    assert len(rates) == sum(len(g["params"]) for g in objective.parameters())


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, (0.03, 6 * 0.03 / 2)), ({"prefix_attention": "concat"}, (3e-4,))],
)
def test_the_prefix_learns_in_relation_to_lora(
    options: dict[str, Any], expected: tuple[float, ...], bench: Path
) -> None:
    objective, _ = ready(bench, learning_rate=0.03, **options)
    lora, *others = [group["lr"] for group in objective.parameters()]
    assert lora == 0.03
    assert others == pytest.approx(list(expected))


@pytest.mark.parametrize(
    ("family", "options", "said"),
    [
        ("llama", {"prefix_text": "", "prefix_start": None}, "'', has no tokens"),
        ("llama", {"prefix_text": "Read.", "prefix_start": "random"}, "'prefix_text'.*'random'"),
        ("bert", {**CONCAT, "prefix_text": "Read."}, "'prefix_text'.*'zero'"),
        ("bert", {"prefix_start": "zero"}, "'parallel' attention can't start with 'zero'"),
    ],
)
def test_a_text_that_would_not_be_read_is_refused(
    family: str, options: dict[str, Any], said: str, bench: Path
) -> None:
    with pytest.raises(UserError, match=said):
        JointObjective(config(bench, family, **options), total_steps=20, seed=0)


@pytest.mark.parametrize(
    ("family", "attention", "said"),
    [
        ("llama", "concat", []),
        ("t5", "concat", ["encoders"]),
        ("bert", "concat", ["positions"]),
        ("llama", "parallel", []),
        ("t5", "parallel", ["llama and mistral models alone"]),
        ("bert", "parallel", ["llama and mistral models alone"]),
    ],
)
def test_an_export_that_will_not_work_is_said_before_training(
    family: str, attention: str, said: list[str], bench: Path
) -> None:
    options = config(bench, family, prefix_attention=attention)
    objective = JointObjective(options, total_steps=20, seed=0)
    warnings = list(objective.warnings())
    assert len(warnings) == len(said)
    assert all("stock PEFT" in line and said[0] in line for line in warnings)
    assert all(f"{attention!r} attention" in line for line in warnings)


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
