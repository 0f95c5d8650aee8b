"""The loss of one task's batch (the inner mean of eq. 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from peml.batches.batch import IGNORED, Batch
from peml.model.answering import answering
from peml.model.forward import last_logits

if TYPE_CHECKING:
    from peml.answers.heads import TaskHeads
    from peml.model.model import LanguageModel


def answer_loss(lm: LanguageModel, batch: Batch, heads: TaskHeads | None = None) -> Tensor:
    """Return the mean over examples of each example's loss, a scalar.

    Language models: the mean cross-entropy of an example's answer tokens (the end token behind a
    choice weighs little, see `Collator`); the head runs on answer positions alone. So an example
    counts the same whatever its answer's length, unlike in the stock loss, which averages over all
    tokens of the batch; the two are equal where the answers are equally long and weigh the same.
    Encoder-only models: cross-entropy, or the squared error in units of the training labels'
    variance.

    Args:
        lm: The language model.
        batch: Inputs and labels on the model's device.
        heads: The task heads of an encoder-only model.

    Raises:
        ValueError: An encoder-only model without heads.
    """
    if lm.family == "encoder":
        if heads is None:
            raise ValueError("an encoder-only model needs task heads")
        return _head_loss(lm, batch, heads)
    if lm.family == "decoder":
        with answering(batch.labels != IGNORED):
            logits = last_logits(lm.model, batch.inputs, batch.labels.shape[1])
    else:
        logits = lm.model(**batch.inputs, use_cache=False).logits
    assert batch.weights is not None
    return mean_answer_loss(logits, batch.labels, batch.weights)


def mean_answer_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Return the mean over rows of the weighted cross-entropy over a row's labels.

    Args:
        logits: `[b, a, vocabulary]`; half precision is raised to float32.
        labels: `[b, a]`, `IGNORED` where there is none.
        weights: `[b, a]`. A row's sum is divided by the number of its labels of full weight.
    """
    losses = F.cross_entropy(
        _raised(logits).transpose(1, 2), labels, ignore_index=IGNORED, reduction="none"
    )
    counts = (weights == 1).sum(dim=1).clamp(min=1)
    return ((losses * weights.to(losses.dtype)).sum(dim=1) / counts).mean()


def _head_loss(lm: LanguageModel, batch: Batch, heads: TaskHeads) -> Tensor:
    hidden = lm.model(**batch.inputs).last_hidden_state
    outputs = _raised(heads(batch.task, hidden, batch.inputs["attention_mask"]))
    if batch.kind == "choice":
        return F.cross_entropy(outputs, batch.labels)
    _, deviation = heads.scale(batch.task)
    wanted = batch.labels.to(outputs.dtype)
    return ((outputs.squeeze(-1) - wanted) / deviation).square().mean()


def _raised(values: Tensor) -> Tensor:
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
