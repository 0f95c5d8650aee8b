"""Likelihood of every choice after a prompt, with one pass over the prompt for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from peml.batches.collate import Collator
from peml.batches.tokens import Ids
from peml.model.forward import accepts, decoder_outputs

if TYPE_CHECKING:
    from peml.tasks.task import Example, Task

Normalisation = Literal["sum", "mean"]


@torch.no_grad()
def choice_scores(
    collator: Collator,
    task: Task,
    examples: Sequence[Example],
    *,
    normalisation: Normalisation = "sum",
) -> list[list[float]]:
    """Return the log-likelihood of each example's choices, given its prompt.

    A decoder reads the prompts once; choices of one token need no more than the logits behind
    them. Longer choices go on from the cached keys and values, and choices that differ in their
    last token alone ("answer1", "answer2") share a row. An encoder-decoder's encoder runs once.

    Args:
        collator: Tokenises for the language model ``collator.lm``, a decoder or encoder-decoder.
        task: A choice task.
        examples: Some of its examples, scored in one batch.
        normalisation: ``sum`` of the tokens' log-probabilities, or their ``mean``.

    Returns:
        One list of scores an example, in the order of its choices.
    """
    choices = [collator.choices(example) for example in examples]
    inputs = {
        name: tensor.to(collator.lm.model.device)
        for name, tensor in collator.prompts(task, examples).items()
    }
    if collator.lm.family == "decoder":
        scores = _decoder_scores(collator, inputs, choices)
    else:
        scores = _encoder_decoder_scores(collator, inputs, choices)
    if normalisation == "mean":
        scores = [
            [score / len(ids) for score, ids in zip(row, row_ids, strict=True)]
            for row, row_ids in zip(scores, choices, strict=True)
        ]
    return scores


def stems(choices: Sequence[Ids]) -> list[Ids]:
    """Return the different beginnings that have to be read to score choices: all but the last
    token of each choice of two tokens or more."""
    return list(dict.fromkeys(ids[:-1] for ids in choices if len(ids) > 1))


def _decoder_scores(
    collator: Collator, inputs: dict[str, Tensor], choices: Sequence[Sequence[Ids]]
) -> list[list[float]]:
    model = collator.lm.model
    pairs = [(row, stem) for row, ids in enumerate(choices) for stem in stems(ids)]
    options: dict[str, object] = {"use_cache": bool(pairs)}
    if accepts(model, "logits_to_keep"):
        options["logits_to_keep"] = 1
    outputs = decoder_outputs(model, inputs, **options)
    first = _log_probabilities(outputs.logits[:, -1])
    later: dict[tuple[int, Ids], Tensor] = {}
    if pairs:
        rows = torch.tensor([row for row, _ in pairs], device=first.device)
        cache = outputs.past_key_values
        cache.batch_select_indices(rows)
        added = collator.pad_right([stem for _, stem in pairs])
        mask = added["attention_mask"].to(first.device)
        prompt_mask = inputs["attention_mask"][rows]
        starts = prompt_mask.sum(dim=1, keepdim=True)
        continued = {
            "input_ids": added["input_ids"].to(first.device),
            "attention_mask": torch.cat([prompt_mask, mask], dim=1),
            "position_ids": starts + torch.arange(mask.shape[1], device=first.device),
        }
        logits = decoder_outputs(model, continued, past_key_values=cache, use_cache=True).logits
        later = dict(zip(pairs, _log_probabilities(logits), strict=True))
    return [
        [_decoder_score(first[row], later, row, choice) for choice in ids]
        for row, ids in enumerate(choices)
    ]


def _decoder_score(
    first: Tensor, later: dict[tuple[int, Ids], Tensor], row: int, choice: Ids
) -> float:
    score = first[choice[0]].double()
    if len(choice) > 1:
        following = later[row, choice[:-1]]
        for position, token in enumerate(choice[1:]):
            score = score + following[position, token].double()
    return float(score)


def _encoder_decoder_scores(
    collator: Collator, inputs: dict[str, Tensor], choices: Sequence[Sequence[Ids]]
) -> list[list[float]]:
    model = collator.lm.model
    encoded = model.get_encoder()(**inputs)
    # The empty stem, the start token alone, serves all choices of one token.
    pairs = [
        (row, stem)
        for row, ids in enumerate(choices)
        for stem in dict.fromkeys(choice[:-1] for choice in ids)
    ]
    rows = torch.tensor([row for row, _ in pairs], device=model.device)
    encoded.last_hidden_state = encoded.last_hidden_state[rows]
    # A closing token stands in for the one that `decoder_inputs` leaves out.
    decoder_ids = collator.decoder_inputs([(*stem, 0) for _, stem in pairs])
    logits = model(
        encoder_outputs=encoded,
        attention_mask=inputs["attention_mask"][rows],
        decoder_input_ids=decoder_ids.to(model.device),
        use_cache=False,
    ).logits
    known = dict(zip(pairs, _log_probabilities(logits), strict=True))
    return [
        [
            float(
                sum(
                    known[row, choice[:-1]][position, token].double()
                    for position, token in enumerate(choice)
                )
            )
            for choice in ids
        ]
        for row, ids in enumerate(choices)
    ]


def _log_probabilities(logits: Tensor) -> Tensor:
    raised = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    return raised.log_softmax(dim=-1)
