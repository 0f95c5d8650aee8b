"""Terms on linear layers, beside independent computations of them."""

from __future__ import annotations

from typing import Any

import peft
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from peml.methods.linear import LinearTerms
from peml.methods.lora import Lora
from peml.methods.method import METHODS, Method, Setting, attach_method
from peml.methods.mtl_lora import MtlLora
from peml.methods.multilora import MultiLora
from peml.methods.poly import Mhr, Poly
from peml.testing.models import output, some_inputs, tiny_model
from prefixnas.base.errors import UserError

TASKS = ("first", "second", "third")


def attached(method: Method, kind: str = "llama") -> LinearTerms:
    """A method in a tiny model, with weights that are anything but fresh."""
    found = attach_method(method, tiny_model(kind), Setting(TASKS))
    assert isinstance(found, LinearTerms)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return found


@pytest.mark.parametrize("kind", ["llama", "t5"])
@pytest.mark.parametrize("splits", [1, 2])
def test_poly_and_mhr_are_those_of_peft(splits: int, kind: str) -> None:
    method = Poly(lora_rank=3) if splits == 1 else Mhr(lora_rank=3, splits=splits)
    ours = attached(method, kind)
    lm = tiny_model(kind)
    terms: Any = attach_method(method, tiny_model(kind), Setting(TASKS))
    fresh = {name: float(t.a.std()) for name, t in zip(terms.layers, terms.terms, strict=True)}
    config = peft.PolyConfig(
        r=3,
        target_modules=sorted(ours.layers),
        n_tasks=len(TASKS),
        n_skills=4,
        n_splits=splits,
        poly_type="poly",
    )
    torch.manual_seed(0)
    theirs: Any = peft.get_peft_model(lm.model, config)
    for name, term in zip(ours.layers, ours.terms, strict=True):
        known: Any = term
        layer: Any = theirs.base_model.model.get_submodule(name)
        assert fresh[name] == pytest.approx(float(layer.poly_lora_A["default"].std()), rel=0.2)
        with torch.no_grad():
            layer.poly_lora_A["default"].copy_(known.a.transpose(2, 3))
            layer.poly_lora_B["default"].copy_(known.b.transpose(2, 3))
            logits = torch.stack([each.flatten() for each in known.logits])
            layer.poly_router["default"].module_logits.copy_(logits)
    theirs.double().eval()
    numbers = sum(p.numel() for n, p in theirs.named_parameters() if "poly_" in n)
    assert numbers == sum(parameter.numel() for parameter in ours.parameters())
    given = some_inputs(lm)
    for number, task in enumerate(TASKS):
        with ours.lm.on(task), torch.no_grad():
            found = output(ours.lm, given)
            ids = torch.full((len(given["input_ids"]),), number)
            expected = theirs.base_model(**given, task_ids=ids).logits
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_one_module_with_open_scales_is_lora() -> None:
    """MultiLoRA of one module whose scales are one computes what PEFT's LoRA does."""
    one = attached(MultiLora(modules=1, lora_rank=3, lora_dropout=0.0))
    lm = tiny_model("llama")
    lora: Any = attach_method(Lora(lora_rank=3, lora_dropout=0.0), lm, Setting(TASKS))
    weights = {name: parameter for name, parameter in lora.weights_by_name.items()}
    with torch.no_grad():
        for name, term in zip(one.layers, one.terms, strict=True):
            known: Any = term
            known.scales.fill_(1.0)
            known.scale = 32 / 3
            weights[f"{name}.lora_A.default.weight"].copy_(known.a[0])
            weights[f"{name}.lora_B.default.weight"].copy_(known.b[0])
    given = some_inputs(lm)
    torch.testing.assert_close(output(one.lm, given), output(lm, given), rtol=1e-6, atol=1e-6)


def by_hand(method: MtlLora, term: Any, x: Tensor, task: int) -> Tensor:
    """MTL-LoRA as its paper writes it, part by part."""
    weights = torch.softmax(term.mixture[task] / method.mixture_temperature, 0)
    inner = torch.einsum("...i,ri->...r", x, term.a) @ term.middle[task].T
    parts = [w * inner @ b.T for w, b in zip(weights, term.b, strict=True)]
    return method.lora_alpha / method.lora_rank * sum(parts, torch.zeros(()))


def test_mtl_lora_is_that_of_its_paper() -> None:
    method = MtlLora(lora_rank=3, lora_dropout=0.0)
    terms = attached(method)
    name, term = next(iter(terms.layers)), terms.terms[0]
    layer: Any = terms.layers[name]
    x = torch.randn(2, 5, layer.in_features, dtype=torch.float64)
    plain = torch.nn.functional.linear(x, layer.weight)
    for number, task in enumerate(TASKS):
        with terms.lm.on(task):
            torch.testing.assert_close(layer(x) - plain, by_hand(method, term, x, number))


@pytest.mark.parametrize("name", ["hydralora", "loramoe"])
def test_what_is_routed_is_weighed_position_by_position(name: str) -> None:
    made: Any = METHODS.get(name)(lora_rank=3, lora_dropout=0.0)
    terms = attached(made)
    layer: Any = next(iter(terms.layers.values()))
    term: Any = terms.terms[0]
    x = torch.randn(2, 5, layer.in_features, dtype=torch.float64)
    gates = torch.softmax(x @ term.router.T, -1)
    scale, expected = made.lora_alpha / 3, torch.zeros(())
    for expert in range(len(term.b)):
        a = term.a if name == "hydralora" else term.a[expert]
        expected = expected + scale * gates[..., expert, None] * (x @ a.T @ term.b[expert].T)
    plain = torch.nn.functional.linear(x, layer.weight)
    torch.testing.assert_close(layer(x) - plain, expected, rtol=1e-5, atol=1e-5)


def test_what_is_absent_from_a_step_stays_where_it_is() -> None:
    terms = attached(MtlLora(lora_rank=3))
    term: Any = terms.terms[0]
    with terms.lm.on("second"):
        output(terms.lm, some_inputs(terms.lm)).sum().backward()
    assert term.mixture[1].grad is not None and term.middle[1].grad is not None
    assert term.mixture[0].grad is None and term.middle[2].grad is None


def test_routers_learn_at_their_own_rate_and_do_not_decay() -> None:
    factors, routers = attached(Poly(lora_rank=3)).groups()
    assert (factors.learning_rate, factors.weight_decay) == (None, None)
    assert (routers.learning_rate, routers.weight_decay) == (0.1, 0.0)
    assert {tuple(p.shape) for p in routers.parameters} == {(1, 4)}
    folded = attached(MultiLora(lora_rank=3)).groups()
    assert [group.weight_decay for group in folded] == [None, 0.0]


def test_the_balance_loss_pushes_kinds_to_their_half() -> None:
    """It is least where a task of the second kind uses the second half of the experts more."""
    moe: Any = METHODS.get("loramoe")
    terms: Any = attached(moe(experts=4, balance=1.0, balance_delta=0.5, second_kind=["second"]))
    first, last = torch.tensor([[3.0, 3.0, 1.0, 1.0]]), torch.tensor([[1.0, 1.0, 3.0, 3.0]])
    assert terms._spread(last, True) < terms._spread(first, True)
    assert terms._spread(first, False) < terms._spread(last, False)


def test_padding_has_no_part_in_the_balance_loss() -> None:
    from peml.testing.models import padded

    moe: Any = METHODS.get("loramoe")
    found = []
    for long in (False, True):
        terms = attached(moe(experts=4, balance=1.0, lora_rank=2, lora_dropout=0.0), "bert")
        given = some_inputs(terms.lm)
        terms.lm.model.train()
        with terms.lm.on("first"):
            output(terms.lm, padded(terms.lm, given) if long else given)
            term = terms.batch_loss()
        assert term is not None
        found.append(float(term.detach()))
    assert found[1] == pytest.approx(found[0])


@pytest.mark.parametrize("length", [7, 9])
def test_padding_behind_answers_has_no_part_in_it_either(length: int) -> None:
    """Also where answers are padded to the length of the text, whose mask is another."""
    moe: Any = METHODS.get("loramoe")
    terms = attached(moe(experts=4, balance=1.0, lora_rank=2, lora_dropout=0.0), "t5")
    given = some_inputs(terms.lm)
    assert (given["input_ids"].shape[1], given["decoder_input_ids"].shape[1]) == (7, 5)
    given["attention_mask"] = torch.ones(2, 7).index_fill(1, torch.tensor([6]), 0)
    pad: Any = terms.lm.model.config.pad_token_id
    terms.lm.model.train()
    losses = []
    for behind in (0, length - 5):
        answers = F.pad(given["decoder_input_ids"], (0, behind), value=pad)
        with terms.lm.on("first"):
            output(terms.lm, {**given, "decoder_input_ids": answers})
            losses.append(terms.batch_loss())
    torch.testing.assert_close(losses[1], losses[0])


def test_parts_keep_no_more_for_the_backward_pass_than_one_lora_of_their_rank() -> None:
    def kept(modules: int, rank: int) -> int:
        terms = attached(MultiLora(modules=modules, lora_rank=rank, lora_dropout=0.0))
        own = {p.untyped_storage().data_ptr() for p in terms.lm.model.parameters()}
        sizes: dict[int, int] = {}
        alive: list[Tensor] = []

        def note(tensor: Tensor) -> Tensor:
            alive.append(tensor)
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own and tensor.shape[:2] == (2, 7):
                sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            output(terms.lm, some_inputs(terms.lm))
        return sum(sizes.values())

    assert kept(4, 2) == kept(1, 8)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("moelora", {"experts": 5}, "5 do not divide the rank, 16"),
        ("mhr", {"splits": 5}, "5 do not divide the 16 numbers of"),
        ("mtl-lora", {"lora_targets": ["q_prog"]}, r"did you mean 'q_proj'"),
        ("loramoe", {"second_kind": ["frist"]}, r"unknown task 'frist'.*'first'"),
        ("mtl-lora", {"mixture_temperature": 0.0}, r"at least 0\.001"),
    ],
)
def test_mistakes_are_named(name: str, options: dict[str, Any], message: str) -> None:
    cls: Any = METHODS.get(name)
    with pytest.raises(UserError, match=message):
        attached(cls(**options))
