from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor, nn

from peml.adapters.lora import merge_adapter
from peml.methods.lora_handle import LoraHandle
from peml.methods.lora_kinds import LORA_KINDS
from peml.methods.peft_lora import add_lora
from peml.methods.targets import attention_projections, linear_modules
from peml.model.model import LanguageModel
from prefixnas.base.errors import UserError
from tests.peml import zoo

STEPS = 20


def adapted(kind_of_model: str, kind: str, **options: Any) -> tuple[LanguageModel, LoraHandle]:
    lm = zoo.language_model(kind_of_model)
    options = {"rank": 4, "dropout": 0.0, "total_steps": STEPS, **options}
    return lm, add_lora(lm, kind, **options)


def train(lm: LanguageModel, lora: LoraHandle, steps: int, first: int = 0) -> list[float]:
    given, losses = zoo.inputs(lm.name.removeprefix("tiny-")), []
    optimizer = torch.optim.SGD(lora.parameters(), lr=2.0)
    for step in range(first, first + steps):
        logits = zoo.output(lm.model, given)
        weights = torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype).view_as(logits)
        loss = (weights * logits).mean()
        losses.append(float(loss.detach()))
        term = lora.step_loss()
        (loss if term is None else loss + term).backward()
        optimizer.step()
        lora.stepped(step)
        optimizer.zero_grad()
    return losses


def result(lm: LanguageModel) -> Tensor:
    with torch.no_grad():
        return zoo.output(lm.model, zoo.inputs(lm.name.removeprefix("tiny-")))


# --- the same as PEFT alone ---------------------------------------------------------------------

STOCK: dict[str, Callable[..., peft.PeftConfig]] = {
    "lora": lambda **k: peft.LoraConfig(r=4, **k),
    "rslora": lambda **k: peft.LoraConfig(r=4, use_rslora=True, **k),
    "dora": lambda **k: peft.LoraConfig(r=4, use_dora=True, **k),
    "adalora": lambda **k: peft.AdaLoraConfig(
        init_r=6, target_r=4, tinit=2, tfinal=10, deltaT=1, total_step=STEPS, **k
    ),
}


@pytest.mark.parametrize("kind", LORA_KINDS)
def test_training_equals_stock_peft(kind: str) -> None:
    lm, lora = adapted("llama", kind)
    config = STOCK[kind](
        task_type="CAUSAL_LM",
        lora_alpha=32,
        lora_dropout=0.0,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
    )
    stock: Any = peft.get_peft_model(zoo.build("llama"), config)
    # PEFT forgets to freeze ranknum, which it neither saves nor means to train.
    theirs = [p for n, p in stock.named_parameters() if p.requires_grad and "ranknum" not in n]
    assert [p.shape for p in theirs] == [p.shape for p in lora.parameters()]
    with torch.no_grad():
        for mine, other in zip(lora.parameters(), theirs, strict=True):
            other.copy_(mine)
    given = zoo.inputs("llama")
    given["labels"] = given["input_ids"]
    optimizers = [torch.optim.SGD(p, lr=0.5) for p in (lora.parameters(), theirs)]
    for step in range(14):
        loss = lm.model(**given).loss
        if (term := lora.step_loss()) is not None:
            loss = loss + term
        expected = stock(**given).loss
        # PEFT adds AdaLoRA's term in float32.
        torch.testing.assert_close(loss.float(), expected.float())
        loss.backward()
        expected.backward()
        for optimizer in optimizers:
            optimizer.step()
        lora.stepped(step)
        if kind == "adalora":
            stock.base_model.update_and_allocate(step)
        for optimizer in optimizers:
            optimizer.zero_grad()
    for mine, other in zip(lora.parameters(), theirs, strict=True):
        torch.testing.assert_close(mine, other)


def test_adalora_ends_with_the_rank_asked_for_on_average() -> None:
    lm, lora = adapted("llama", "adalora")
    train(lm, lora, STEPS)
    values = [p for name, p in lm.model.named_parameters() if "lora_E" in name]
    assert all(len(value) == 6 for value in values)
    kept = sum(int((value != 0).sum()) for value in values)
    # Equal importances at the threshold fall together.
    assert 0 < kept <= 4 * len(values)


@pytest.mark.parametrize("kind", LORA_KINDS)
@pytest.mark.parametrize("model", ["llama", "gpt2", "t5", "bart", "bert"])
def test_fresh_trained_saved_reset_and_merged(model: str, kind: str, tmp_path: Path) -> None:
    lm, lora = adapted(model, kind, seed=5)
    plain = zoo.output(zoo.build(model), zoo.inputs(model))
    torch.testing.assert_close(result(lm), plain)
    fresh = [p.detach().clone() for p in lora.parameters()]
    train(lm, lora, 8)
    trained = result(lm)
    assert not torch.allclose(trained, plain, atol=1e-4)

    lora.save(tmp_path / "lora")
    merged = merge_adapter(zoo.build(model), tmp_path / "lora", kind)
    torch.testing.assert_close(zoo.output(merged, zoo.inputs(model)), trained, atol=1e-6, rtol=1e-6)
    assert not [n for n, _ in merged.named_parameters() if "lora" in n]
    assert type(merged) is type(zoo.build(model))

    state = lora.state_dict()
    kept = {**state, "weights": {k: v.clone() for k, v in state["weights"].items()}}
    lora.reset(5)
    assert all(torch.equal(p, q) for p, q in zip(lora.parameters(), fresh, strict=True))
    torch.testing.assert_close(result(lm), plain)
    lora.reset(6)
    assert any(not torch.equal(p, q) for p, q in zip(lora.parameters(), fresh, strict=True))

    lora.load_state_dict(kept)
    assert torch.equal(result(lm), trained)


@pytest.mark.parametrize("kind", LORA_KINDS)
def test_going_on_from_a_state_equals_never_having_stopped(kind: str) -> None:
    whole, lora = adapted("llama", kind)
    train(whole, lora, 12)
    first, begun = adapted("llama", kind)
    train(first, begun, 7)
    second, resumed = adapted("llama", kind, seed=99)
    resumed.load_state_dict(begun.state_dict())
    train(second, resumed, 5, first=7)
    assert torch.equal(result(second), result(whole))


@pytest.mark.parametrize("kind", LORA_KINDS)
def test_training_after_a_reset_equals_training_anew(kind: str) -> None:
    lm, lora = adapted("llama", kind)
    first = train(lm, lora, 14)
    lora.reset(0)
    assert train(lm, lora, 14) == first


def test_only_the_updates_train_and_modes_stay() -> None:
    lm, lora = adapted("llama", "lora", dropout=0.5)
    assert {id(p) for p in lm.model.parameters() if p.requires_grad} == {
        id(p) for p in lora.parameters()
    }
    assert not any(module.training for module in lm.model.modules())
    model = zoo.language_model("llama")
    model.model.train()
    add_lora(model)
    assert all(module.training for module in model.model.modules())


def test_adding_takes_no_random_number() -> None:
    lm = zoo.language_model("llama")
    state = torch.get_rng_state()
    add_lora(lm)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("llama", ["k_proj", "o_proj", "q_proj", "v_proj"]),
        ("t5", ["k", "o", "q", "v"]),
        ("bart", ["k_proj", "out_proj", "q_proj", "v_proj"]),
        ("gpt2", ["attn.c_attn", "attn.c_proj"]),
        (
            "bert",
            [f"attention.{n}" for n in ("output.dense", "self.key", "self.query", "self.value")],
        ),
    ],
)
def test_default_targets_are_the_attention_projections(kind: str, expected: list[str]) -> None:
    assert attention_projections(zoo.build(kind)) == expected


def test_targets_of_the_user() -> None:
    lm, _ = adapted("llama", "lora", targets=["q_proj", "mlp.up_proj"])
    wrapped = {n.rsplit(".lora_A", 1)[0] for n, _ in lm.model.named_parameters() if "lora_A" in n}
    assert {name.split(".")[-1] for name in wrapped} == {"q_proj", "up_proj"}
    assert isinstance(lm.model.get_submodule("model.layers.0.self_attn.k_proj"), nn.Linear)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("lore", {}, "did you mean 'lora'"),
        ("lora", {"rank": 0}, "rank is 0"),
        ("lora", {"dropout": 1.0}, "dropout is 1.0"),
        ("lora", {"targets": ["q_prog"]}, "did you mean 'q_proj'"),
        ("lora", {"targets": []}, "targets is empty"),
        ("adalora", {"total_steps": None}, "total number of training steps"),
    ],
)
def test_mistakes_are_named(kind: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        adapted("llama", kind, **options)


def test_a_folder_without_an_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"adapter_config\.json is missing"):
        merge_adapter(zoo.build("llama"), tmp_path, "lora")


# --- weights that are used in two places --------------------------------------------------------


def tied(kind: str) -> LanguageModel:
    lm = zoo.language_model(kind)
    lm.model.set_output_embeddings(lm.model.get_output_embeddings())
    lm.model.config.tie_word_embeddings = True
    lm.model.get_output_embeddings().weight = lm.model.get_input_embeddings().weight
    return lm


@pytest.mark.parametrize("model", ["llama", "gpt2", "t5"])
@pytest.mark.parametrize("kind", LORA_KINDS)
def test_an_update_of_tied_weights_is_refused(model: str, kind: str) -> None:
    lm = tied(model)
    every = {n.split(".")[-1] for n, m in lm.model.named_modules() if hasattr(m, "weight")}
    linear = sorted(every & {n.split(".")[-1] for n in linear_modules(lm.model)})
    assert "lm_head" in linear
    with pytest.raises(UserError, match="module 'lm_head' shares its weights with") as caught:
        add_lora(lm, kind, rank=4, total_steps=STEPS, targets=linear)
    assert "\n" not in str(caught.value)
    linear.remove("lm_head")
    add_lora(lm, kind, rank=4, total_steps=STEPS, targets=linear)


def test_an_adapter_of_tied_weights_is_not_merged(tmp_path: Path) -> None:
    _, lora = adapted("llama", "lora", targets=["lm_head", "q_proj"])
    lora.save(tmp_path)
    merge_adapter(zoo.build("llama"), tmp_path, "lora")
    with pytest.raises(UserError, match=r"'lm_head.base_layer' shares its weights"):
        merge_adapter(tied("llama").model, tmp_path, "lora")
