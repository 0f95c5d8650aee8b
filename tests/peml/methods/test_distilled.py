"""MPT's distillation: prompts of single tasks first, then one for all that is held to them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from peml.answers.loss import answer_loss
from peml.batches.batch import IGNORED, Batch
from peml.batches.collate import Collator
from peml.methods.method import Setting, attach_method
from peml.methods.mpt import Mpt
from prefixnas import Budget, Recipe, Run, load_space, search
from prefixnas.base.errors import UserError
from prefixnas.strategies.fixed import Fixed
from tests.peml import tiny, zoo
from tests.peml.methods import promises
from tests.peml.objective.test_order import made as config_of

METHOD = Mpt(prompt_length=3, distill=0.5)
FAMILIES = ("llama", "t5", "bert", "gpt2")
LESSONS = 3


def fresh(kind: str = "llama", method: Mpt = METHOD) -> tuple[Any, Any]:
    return promises.attached(method, kind, total_steps=2 * LESSONS)


def trained(kind: str, steps: int) -> tuple[Any, Any]:
    lm, made = fresh(kind)
    lm.model.train()
    promises.train(lm, made, steps)
    return lm, made


@pytest.mark.parametrize("kind", FAMILIES)
def test_teachers_learn_first_and_are_still_while_the_others_learn(kind: str) -> None:
    lm, made = fresh(kind)
    lm.model.train()
    start = copy.deepcopy(made.state_dict())
    reached = promises.train(lm, made, LESSONS)
    taught = copy.deepcopy(made.state_dict())
    by_id = {id(weight): name for name, weight in made.named().items()}
    names = [by_id[id(weight)] for weight in made.parameters()]
    assert {n for n, times in zip(names, reached, strict=True) if times} == {
        "teachers.0",
        "teachers.1",
    }
    assert not torch.equal(taught["teachers.0"], start["teachers.0"])
    assert not torch.equal(taught["teachers.0"], taught["teachers.1"])
    assert torch.equal(taught["common"], start["common"])
    optimizer = torch.optim.Adam(made.parameters(), lr=0.1)
    for step in range(LESSONS, 2 * LESSONS):
        with lm.on("y"):
            (zoo.output(lm.model, zoo.inputs(kind)).mean() + made.batch_loss()).backward()
        optimizer.step()
        made.stepped(step)
        optimizer.zero_grad()
    now = made.state_dict()
    assert torch.equal(now["teachers.1"], taught["teachers.1"])
    assert not torch.equal(now["common"], taught["common"])
    assert torch.equal(now["u.0"], taught["u.0"])  # of the task that was not seen


def seen(lm: Any, kind: str) -> tuple[Tensor, Tensor]:
    """What the output layer reads, and the log-probabilities, of the last pass's tokens."""
    given = zoo.inputs(kind)
    found = lm.model(**given, output_hidden_states=True)
    if kind == "bert":
        return found.last_hidden_state, torch.zeros(1)
    states = found.decoder_hidden_states if kind == "t5" else found.hidden_states
    length = found.logits.shape[1]
    hidden = states[-1][:, -length:]
    if kind == "t5":
        hidden = hidden * lm.model.config.d_model**-0.5 if scaled(lm) else hidden
    return hidden, found.logits.log_softmax(-1)


def scaled(lm: Any) -> bool:
    """Whether T5's output layer reads its states divided by the root of their width."""
    return bool(getattr(lm.model.config, "scale_decoder_outputs", False))


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_term_is_the_formula(kind: str) -> None:
    """Against sums over all tokens and all words, of passes made one by one."""
    lm, made = trained(kind, LESSONS)
    lm.model.eval()
    lm.model.training = True  # a training pass, and no dropout that draws
    with lm.on("y"):
        zoo.output(lm.model, zoo.inputs(kind))
        term = made.batch_loss()
        with torch.no_grad():
            hidden, logs = seen(lm, kind)
            made._repeating = True
            taught, wanted = seen(lm, kind)
    apart = ((hidden - taught) ** 2).mean(-1)
    if kind != "bert":
        apart = apart + (wanted.exp() * (wanted - logs)).sum(-1)
    assert term.item() == pytest.approx(0.9 * apart.mean().item(), rel=1e-5)
    assert term.item() > 0


def test_of_a_decoder_the_answers_alone_are_compared_each_row_at_its_own() -> None:
    lm = tiny.llama()
    lm.model.double()
    made: Any = attach_method(METHOD, lm, Setting(("x",), total_steps=2))
    made.stepped(0)
    rows = [("film plot a b c", "yes"), ("film", "not so very good , a bad plot")]
    task = tiny.task_of("x", rows, kind="generation")
    batch = Collator(lm).batch(task, task.splits["train"])
    lm.model.training = True
    with lm.on("x"):
        answer_loss(lm, batch)
        term = made.batch_loss()
        with torch.no_grad():
            hidden, logits = _outputs(lm, batch)
            made._repeating = True
            taught, wanted = _outputs(lm, batch)
    apart = ((hidden - taught) ** 2).mean(-1) + (
        wanted.softmax(-1) * (wanted.log_softmax(-1) - logits.log_softmax(-1))
    ).sum(-1)
    answers = [labels != IGNORED for labels in batch.labels]
    assert answers[0].sum() < answers[1].sum()
    means = [row[-len(here) :][here].mean() for row, here in zip(apart, answers, strict=True)]
    assert term.item() == pytest.approx(0.9 * torch.stack(means).mean().item(), rel=1e-5)


def _outputs(lm: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    found = lm.model(**batch.inputs, output_hidden_states=True)
    length = found.logits.shape[1]
    return found.hidden_states[-1][:, -length:], found.logits


@pytest.mark.parametrize("kind", FAMILIES)
def test_evaluations_see_what_is_saved_while_teachers_learn(kind: str, tmp_path: Path) -> None:
    lm, made = trained(kind, 1)
    in_training = promises.result(lm, "y")
    lm.model.eval()
    made.save(tmp_path)
    other, read = promises.attached(METHOD, kind, seed=9, trains=False)
    read.load(tmp_path)
    assert torch.equal(promises.result(lm, "y"), promises.result(other, "y"))
    assert not torch.allclose(promises.result(lm, "y"), in_training)


def test_the_teachers_outputs_have_no_gradient_and_draw_nothing() -> None:
    lm, made = trained("t5", LESSONS)
    lm.model.train()
    with lm.on("x"):
        zoo.output(lm.model, zoo.inputs("t5"))
        state = torch.get_rng_state()
        made.batch_loss().backward()
    assert torch.equal(torch.get_rng_state(), state)
    assert lm.model.training and made.part.teachers[0].grad is None
    assert made.part.common.grad is not None
    assert made.batch_loss() is None  # it is forgotten


def test_an_evaluation_leaves_no_term() -> None:
    lm, made = trained("llama", LESSONS)
    lm.model.eval()
    promises.result(lm)
    assert made.batch_loss() is None


@pytest.mark.parametrize("steps", [1, 5])
def test_it_goes_on_bit_for_bit(steps: int) -> None:
    lm, made = trained("llama", steps)
    other, again = fresh("llama")
    again.load_state_dict(copy.deepcopy(made.state_dict()))
    for each, one in ((lm, made), (other, again)):
        each.model.train()
        torch.manual_seed(1)
        promises.train(each, one, 2)
        one.stepped(steps)
    assert all(map(torch.equal, made.parameters(), again.parameters()))


def test_an_adapter_holds_no_teachers(tmp_path: Path) -> None:
    lm, made = trained("llama", 2 * LESSONS)
    lm.model.eval()
    made.save(tmp_path)
    other, read = promises.attached(METHOD, "llama", seed=9, total_steps=1)
    read.load(tmp_path)
    assert torch.equal(promises.result(lm, "y"), promises.result(other, "y"))
    plain, without = promises.attached(Mpt(prompt_length=3), "llama", seed=9)
    without.load(tmp_path)
    assert torch.equal(promises.result(lm, "y"), promises.result(plain, "y"))


def test_weights_are_counted_with_the_teachers() -> None:
    weights = 3 * 32 + 2 * (3 + 32)
    promises.check_counted(METHOD, "llama", weights + 2 * 3 * 32, total_steps=4)
    _, made = fresh()
    assert made.weights_in_use() == 3 * 32 + 3 + 32


def test_the_number_of_steps_is_needed() -> None:
    with pytest.raises(UserError, match="distillation needs the number of steps"):
        promises.attached(METHOD, "llama")


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_a_run(family: str, bench: Path, tmp_path: Path) -> None:
    config = config_of(bench, family, "parallel", "mpt", prompt_length=3, distill=0.4)
    objective = config.build(5, 0)
    run = Run(tmp_path, load_space("none"), objective, Budget(0, 5))
    result = search(run, Fixed(), Recipe(), baseline="none")
    assert 0 <= result.score <= 1
