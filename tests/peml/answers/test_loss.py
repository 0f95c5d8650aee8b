from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from peml.answers.heads import TaskHeads
from peml.answers.loss import answer_loss, mean_answer_loss
from peml.batches.batch import IGNORED
from peml.batches.collate import END_WEIGHT, Collator
from tests.peml import tiny

# One-token and two-token answers, prompts of different lengths.
UNEVEN = tiny.task_of(
    "t", [("a b c", "very good"), ("d", "bad"), ("e f", "bad")], choices=("bad", "very good")
)
EVEN = tiny.task_of("e", [("a b c", "good"), ("d", "bad"), ("e f", "bad")], choices=("bad", "good"))
RATING = tiny.task_of("r", [("a b", "4.0"), ("c", "1.0")], kind="regression")


def stock_decoder_loss(lm: Any, prompt: str, answer: str) -> torch.Tensor:
    """The losses of transformers for one row, no padding: answer, and a little of its end."""
    ids = lm.tokenizer(f"{prompt} {answer}", return_tensors="pt")["input_ids"]
    ids = torch.cat([ids, torch.tensor([[lm.tokenizer.eos_token_id]])], dim=1)

    def on(part: slice) -> torch.Tensor:
        labels = torch.full_like(ids, IGNORED)
        labels[:, part] = ids[:, part]
        return in_float64(lm.model(input_ids=ids, labels=labels), labels)

    return on(slice(len(prompt.split()), -1)) + END_WEIGHT / len(answer.split()) * on(
        slice(-1, None)
    )


def in_float64(output: Any, labels: torch.Tensor) -> torch.Tensor:
    """The stock loss of a decoder without its detour through float32."""
    exact = F.cross_entropy(output.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    assert exact.item() == pytest.approx(output.loss.item(), abs=1e-5)
    return exact


def stock_t5_loss(lm: Any, prompt: str, answer: str) -> torch.Tensor:
    ids = lm.tokenizer(prompt, return_tensors="pt")["input_ids"]
    words = lm.tokenizer(answer, return_tensors="pt")["input_ids"]
    whole = torch.cat([words, torch.tensor([[lm.tokenizer.eos_token_id]])], dim=1)
    end = whole.clone()
    end[:, :-1] = IGNORED
    closing = lm.model(input_ids=ids, decoder_input_ids=shifted(lm, whole)).logits
    spoken = lm.model(input_ids=ids, labels=words).loss
    weight = END_WEIGHT / len(answer.split())
    return spoken + weight * F.cross_entropy(closing.flatten(0, 1), end.flatten())


def shifted(lm: Any, labels: torch.Tensor) -> torch.Tensor:
    start = torch.tensor([[lm.model.config.decoder_start_token_id]])
    return torch.cat([start, labels[:, :-1]], dim=1)


@pytest.mark.parametrize("task", [UNEVEN, EVEN], ids=["uneven", "even"])
@pytest.mark.parametrize(
    ("make", "stock"),
    [(tiny.llama, stock_decoder_loss), (tiny.t5, stock_t5_loss)],
    ids=["llama", "t5"],
)
def test_equals_the_mean_of_stock_losses_of_single_rows(make: Any, stock: Any, task: Any) -> None:
    lm = make()
    examples = task.splits["train"]
    loss = answer_loss(lm, Collator(lm).batch(task, examples))
    wanted = torch.stack([stock(lm, e.prompt, e.answer) for e in examples]).mean()
    assert loss.item() == pytest.approx(wanted.item(), abs=1e-12)


def test_equals_the_stock_loss_of_the_padded_batch_for_equal_answers() -> None:
    lm = tiny.llama()
    batch = Collator(lm).batch(EVEN, EVEN.splits["train"])
    # Stock labels are as long as the input and shifted inside the model.
    inputs = dict(batch.inputs)
    ends = batch.labels[:, -1:]
    inputs["input_ids"] = torch.cat([inputs["input_ids"], ends], dim=1)
    inputs["attention_mask"] = torch.cat([inputs["attention_mask"], torch.ones_like(ends)], dim=1)
    positions = inputs["position_ids"]
    inputs["position_ids"] = torch.cat([positions, positions[:, -1:] + 1], dim=1)

    def on(column: int) -> float:
        labels = torch.full_like(inputs["input_ids"], IGNORED)
        labels[:, column] = inputs["input_ids"][:, column]
        return in_float64(lm.model(**inputs, labels=labels), labels).item()

    wanted = on(-2) + END_WEIGHT * on(-1)
    assert answer_loss(lm, batch).item() == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("make", [tiny.llama, tiny.t5])
def test_gradient_equals_the_stock_losses(make: Any) -> None:
    lm = make()
    stock = stock_decoder_loss if lm.family == "decoder" else stock_t5_loss
    examples = UNEVEN.splits["train"]

    def gradients(loss: torch.Tensor) -> list[torch.Tensor]:
        found = torch.autograd.grad(loss, list(lm.model.parameters()), allow_unused=True)
        return [gradient for gradient in found if gradient is not None]

    ours = gradients(answer_loss(lm, Collator(lm).batch(UNEVEN, examples)))
    wanted = gradients(torch.stack([stock(lm, e.prompt, e.answer) for e in examples]).mean())
    assert len(ours) == len(wanted) > 10
    for one, other in zip(ours, wanted, strict=True):
        # Norm layers round to float32, and the reference makes two passes.
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_the_head_runs_on_answer_positions_alone() -> None:
    lm = tiny.llama()
    seen: list[torch.Size] = []
    head: Any = lm.model.get_output_embeddings()
    head.register_forward_hook(lambda module, args, output: seen.append(output.shape))
    answer_loss(lm, Collator(lm).batch(UNEVEN, UNEVEN.splits["train"]))
    assert seen == [torch.Size([3, 3, len(tiny.WORDS)])]


def test_models_without_logits_to_keep_give_the_same_loss() -> None:
    lm = tiny.llama()
    batch = Collator(lm).batch(UNEVEN, UNEVEN.splits["train"])
    wanted = answer_loss(lm, batch)
    stock: Any = lm.model

    class Plain(nn.Module):
        def forward(
            self, input_ids: Any, attention_mask: Any, position_ids: Any, use_cache: bool
        ) -> Any:
            return stock(input_ids, attention_mask=attention_mask, position_ids=position_ids)

    plain: Any = Plain()
    lm.model = plain
    assert answer_loss(lm, batch).item() == pytest.approx(wanted.item(), abs=1e-12)


def test_rows_weigh_the_same_whatever_their_length() -> None:
    logits = torch.zeros(2, 3, 4)
    logits[1, :, 0] = math.log(9.0)
    labels = torch.tensor([[1, IGNORED, IGNORED], [0, 0, 0]])
    # Row one: log 4. Row two: every token has probability 9/12.
    wanted = (math.log(4) + math.log(12 / 9)) / 2
    weights = (labels != IGNORED).float()
    assert mean_answer_loss(logits, labels, weights).item() == pytest.approx(wanted, abs=1e-6)


def test_half_precision_logits_are_raised() -> None:
    loss = mean_answer_loss(
        torch.zeros(1, 1, 4, dtype=torch.bfloat16), torch.tensor([[1]]), torch.ones(1, 1)
    )
    assert loss.dtype == torch.float32


def test_classification_head() -> None:
    lm = tiny.bert()
    heads = TaskHeads.for_tasks(32, [UNEVEN], pooling="cls").double()
    loss = answer_loss(lm, Collator(lm).batch(UNEVEN, UNEVEN.splits["train"]), heads)
    layer = heads.layers["task_t"]
    losses = []
    for example in UNEVEN.splits["train"]:
        ids = lm.tokenizer(example.prompt, return_tensors="pt")["input_ids"]
        logits = layer(lm.model(input_ids=ids).last_hidden_state[:, 0])
        losses.append(-logits.log_softmax(-1)[0, int(example.label)])
    assert loss.item() == pytest.approx(torch.stack(losses).mean().item(), abs=1e-12)


def test_regression_head_is_scaled_by_the_labels_variance() -> None:
    lm = tiny.bert()
    heads = TaskHeads.for_tasks(32, [RATING]).double()
    with torch.no_grad():
        for parameter in heads.parameters():
            parameter.zero_()
    batch = Collator(lm).batch(RATING, RATING.splits["train"])
    # The head says 2.5 throughout: 1.5 off, which is one standard deviation.
    assert answer_loss(lm, batch, heads).item() == pytest.approx(1.0, abs=1e-12)


def test_an_encoder_needs_heads() -> None:
    lm = tiny.bert()
    with pytest.raises(ValueError, match="needs task heads"):
        answer_loss(lm, Collator(lm).batch(UNEVEN, UNEVEN.splits["train"]))
