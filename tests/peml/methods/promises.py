"""What every method whose weights lie beside the model keeps, as checks over tiny models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from peml.methods.method import Attached, Method, Setting, attach_method
from peml.model.model import LanguageModel
from prefixnas.base.errors import UserError
from tests.peml import zoo

TASKS = ("x", "y")
STEPS = 4
PAD = 2


def attached(
    method: Method, kind: str, seed: int = 0, **setting: Any
) -> tuple[LanguageModel, Attached]:
    lm = zoo.language_model(kind)
    return lm, attach_method(method, lm, Setting(TASKS, seed=seed, **setting))


def result(lm: LanguageModel, task: str = "x", given: dict[str, Tensor] | None = None) -> Tensor:
    kind = lm.name.removeprefix("tiny-")
    with torch.no_grad(), lm.on(task):
        return zoo.output(lm.model, given or zoo.inputs(kind))


def train(lm: LanguageModel, made: Attached, steps: int = STEPS, rate: float = 0.1) -> list[int]:
    """Train a little; return for each weight in how many of the steps it had a gradient."""
    given, reached = zoo.inputs(lm.name.removeprefix("tiny-")), [0] * len(made.parameters())
    optimizer = torch.optim.Adam(made.parameters(), lr=rate)
    for step in range(steps):
        for place, task in enumerate(TASKS):
            with lm.on(task):
                logits = zoo.output(lm.model, given)
                wanted = torch.arange(logits.numel(), dtype=logits.dtype).view_as(logits)
                loss = (torch.sin((1 + place) * wanted) * logits).mean()
                term = made.batch_loss()
                (loss if term is None else loss + term).backward()
        for place, parameter in enumerate(made.parameters()):
            reached[place] += parameter.grad is not None and bool(parameter.grad.any())
        optimizer.step()
        made.stepped(step)
        optimizer.zero_grad()
    return reached


def check_start_and_detach(method: Method, kind: str) -> None:
    plain = zoo.build(kind)
    expected = zoo.output(plain, zoo.inputs(kind))
    lm, made = attached(method, kind)
    assert method.starts_at_base == bool(torch.allclose(result(lm), expected, atol=1e-12))
    train(lm, made)
    assert not torch.allclose(result(lm), expected, atol=1e-6)
    made.detach()
    assert torch.equal(zoo.output(lm.model, zoo.inputs(kind)), expected)
    assert lm.attached == []
    now, before = lm.model.state_dict(), plain.state_dict()
    assert all(torch.equal(now[name], before[name]) for name in before) and len(now) == len(before)


def check_reset(method: Method, kind: str) -> None:
    lm, made = attached(method, kind, seed=3)
    objects = made.parameters()
    fresh = [weight.detach().clone() for weight in objects]
    state = torch.get_rng_state()
    made.reset(4)
    assert not all(map(torch.equal, fresh, objects)) or not any(map(torch.Tensor.any, fresh))
    train(lm, made)
    made.reset(3)
    assert all(map(torch.equal, fresh, objects))
    assert all(a is b for a, b in zip(objects, made.parameters(), strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def check_gradients(method: Method, kind: str) -> None:
    """Every weight within four steps; the model's own none."""
    lm, made = attached(method, kind)
    assert all(train(lm, made))
    assert all(weight.grad is None for weight in lm.model.parameters())


def check_counted(method: Method, kind: str, weights: int, **setting: Any) -> None:
    assert method.size(zoo.language_model(kind), len(TASKS)) == weights
    _, made = attached(method, kind, **setting)
    assert sum(weight.numel() for weight in made.parameters()) == weights


def check_tasks(method: Method, kind: str) -> None:
    lm, made = attached(method, kind)
    train(lm, made)
    assert torch.equal(result(lm, "x"), result(lm, "x"))
    assert torch.equal(result(lm, "x"), result(lm, "y")) is not method.needs_task
    if method.needs_task:
        with pytest.raises(UserError, match=r"needs a task.*x, y"):
            zoo.output(lm.model, zoo.inputs(kind))
        with pytest.raises(UserError, match="unknown task 'z'"), lm.on("z"):
            pass
        assert 0 < made.weights_in_use() < sum(weight.numel() for weight in made.parameters())


def check_padding(method: Method, kind: str) -> None:
    """A row among longer ones is read as it is alone."""
    lm, made = attached(method, kind)
    train(lm, made)
    alone = zoo.inputs(kind, batch=1)
    tokens = alone["input_ids"]
    longer = zoo.inputs(kind, batch=1, length=tokens.shape[1] + PAD, seed=5)["input_ids"]
    left = zoo.family(kind) == "decoder"
    padding = torch.zeros(1, PAD, dtype=torch.long)
    parts = [padding, tokens] if left else [tokens, padding]
    seen = [torch.full_like(part, part is tokens) for part in parts]
    both = {
        "input_ids": torch.cat([torch.cat(parts, dim=1), longer]),
        "attention_mask": torch.cat([torch.cat(seen, dim=1), torch.ones_like(longer)]),
    }
    if kind == "gpt2":  # which counts padding among its positions, unless it is told them
        both["position_ids"] = (both["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    if "decoder_input_ids" in alone:
        both["decoder_input_ids"] = alone["decoder_input_ids"].expand(2, -1)
    found, expected = result(lm, given=both)[:1], result(lm, given=alone)
    length = expected.shape[1]
    found = found[:, -length:] if left else found[:, :length]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def check_generation(method: Method, kind: str) -> None:
    """Greedy writing with a cache and padding, against whole passes over each row alone."""
    lm, made = attached(method, kind)
    train(lm, made)
    model: Any = lm.model
    tokens, decoder = zoo.inputs(kind)["input_ids"], zoo.family(kind) == "decoder"
    mask = torch.ones_like(tokens)
    if decoder:
        tokens[0, :PAD], mask[0, :PAD] = 0, 0
    else:
        tokens[0, -PAD:], mask[0, -PAD:] = 0, 0
    with lm.on("y"):
        written = model.generate(
            input_ids=tokens,
            attention_mask=mask,
            max_new_tokens=5,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
    for row, seen, out in zip(tokens, mask, written, strict=True):
        whole = row[seen.bool()][None]
        answer = torch.zeros(1, 0, dtype=torch.long)
        start = (
            torch.full((1, 1), model.config.decoder_start_token_id or 0) if not decoder else None
        )
        for _ in range(5):
            given = {"input_ids": torch.cat([whole, answer], dim=1)}
            if start is not None:
                given = {"input_ids": whole, "decoder_input_ids": torch.cat([start, answer], 1)}
            following = result(lm, "y", given)[:, -1].argmax(-1, keepdim=True)
            answer = torch.cat([answer, following], dim=1)
        assert out[-5:].tolist() == answer[0].tolist()


def check_saved(method: Method, kind: str, folder: Path) -> None:
    lm, made = attached(method, kind)
    train(lm, made)
    state = made.state_dict()
    made.save(folder)
    other, fresh = attached(method, kind, seed=9)
    fresh.load(folder)
    assert all(map(torch.equal, made.parameters(), fresh.parameters()))
    assert torch.equal(result(lm, "y"), result(other, "y"))
    fresh.reset(1)
    fresh.load_state_dict(state)
    assert torch.equal(result(lm, "y"), result(other, "y"))
    with pytest.raises(UserError, match=r"does not merge"):
        made.merge("x")


def check_checkpointing(method: Method, kind: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        lm, made = attached(method, kind)
        train(lm, made, steps=2)
        if checkpointing:
            model: Any = lm.model
            model.gradient_checkpointing_enable({"use_reentrant": False})
        lm.model.train()
        with lm.on("x"):
            zoo.output(lm.model, zoo.inputs(kind)).square().mean().backward()
        gradients.append([weight.grad for weight in made.parameters()])
    for plain, again in zip(*gradients, strict=True):
        assert (plain is None) == (again is None)
        if plain is not None:
            torch.testing.assert_close(plain, again)
