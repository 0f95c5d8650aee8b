"""Likelihood of every choice after a prompt, with one pass over the prompt for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from peml.answers.beginning import Beginning
from peml.batches.collate import Collator
from peml.batches.tokens import Ids
from peml.model.forward import accepts, decoder_outputs

if TYPE_CHECKING:
    from peml.tasks.examples import Example
    from peml.tasks.task import Task

Normalisation = Literal["sum", "mean"]


@torch.no_grad()
def choice_scores(
    collator: Collator,
    task: Task,
    examples: Sequence[Example],
    *,
    normalisation: Normalisation = "sum",
    beginning: Beginning | None = None,
) -> list[list[float]]:
    """Return the log-likelihood of each example's choices, given its prompt.

    A decoder reads the prompts once, and what they have in common once for all. Choices of one
    token need no more than the logits behind the prompt; choices that differ in their last token
    alone ("answer1", "answer2") are read as one, in the same pass. Where choices go apart earlier,
    each goes on from the cached keys and values. An encoder-decoder's encoder runs once.

    Args:
        collator: Tokenises for the language model ``collator.lm``, a decoder or encoder-decoder.
        task: A choice task.
        examples: Some of its examples, scored in one batch.
        normalisation: ``sum`` of the tokens' log-probabilities, or their ``mean``.
        beginning: What the prompts of all these examples begin with, as a decoder has read it.

    Returns:
        One list of scores an example, in the order of its choices.
    """
    choices = [collator.choices(example) for example in examples]
    if collator.lm.family == "decoder":
        prompts = [collator.prompt(task, example) for example in examples]
        score = _joined_scores if all(len(stems(ids)) < 2 for ids in choices) else _branched_scores
        scores = score(collator, beginning or Beginning(), prompts, choices)
    else:
        inputs = {
            name: tensor.to(collator.lm.model.device)
            for name, tensor in collator.prompts(task, examples).items()
        }
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


def _joined_scores(
    collator: Collator,
    beginning: Beginning,
    prompts: Sequence[Ids],
    choices: Sequence[Sequence[Ids]],
) -> list[list[float]]:
    """Score choices with a stem at most: prompt and stem are one row."""
    first = [next(iter(stems(ids)), ()) for ids in choices]
    rows = [prompt + stem for prompt, stem in zip(prompts, first, strict=True)]
    keep = 1 + max(map(len, first))
    inputs = beginning.inputs(collator, rows)
    logits = _read(collator, beginning, inputs, keep, use_cache=bool(beginning.ids)).logits
    # A row's answer ends where the row ends.
    known = _log_probabilities(logits[:, -keep:])
    return [
        [_score(row[keep - 1 - len(stem) :], choice) for choice in ids]
        for row, stem, ids in zip(known, first, choices, strict=True)
    ]


def _branched_scores(
    collator: Collator,
    beginning: Beginning,
    prompts: Sequence[Ids],
    choices: Sequence[Sequence[Ids]],
) -> list[list[float]]:
    """Score choices with several stems: each goes on from the prompt's keys and values."""
    inputs = beginning.inputs(collator, prompts)
    outputs = _read(collator, beginning, inputs, 1, use_cache=True)
    first = _log_probabilities(outputs.logits[:, -1:])
    pairs = [(row, stem) for row, ids in enumerate(choices) for stem in stems(ids)]
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
    model = collator.lm.model
    logits = decoder_outputs(model, continued, past_key_values=cache, use_cache=True).logits
    later = dict(zip(pairs, _log_probabilities(logits), strict=True))
    return [
        [
            _score(first[row], choice[:1]) + _score(later.get((row, choice[:-1])), choice[1:])
            for choice in ids
        ]
        for row, ids in enumerate(choices)
    ]


def _read(
    collator: Collator, beginning: Beginning, inputs: dict[str, Tensor], keep: int, use_cache: bool
) -> Any:
    """Read rows behind a beginning; the last ``keep`` positions have logits, at least."""
    model = collator.lm.model
    options: dict[str, Any] = {"use_cache": use_cache}
    if accepts(model, "logits_to_keep"):
        options["logits_to_keep"] = keep
    if beginning.ids:
        options["past_key_values"] = beginning.cache()
    return decoder_outputs(model, inputs, **options)


def _score(known: Tensor | None, tokens: Ids) -> float:
    """Add up log-probabilities of tokens; `known` ``[at least len(tokens), vocabulary]``."""
    if known is None:
        return 0.0
    return float(sum(known[place, token].double() for place, token in enumerate(tokens)))


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
        [_score(known[row, choice[:-1]], choice) for choice in ids]
        for row, ids in enumerate(choices)
    ]


def _log_probabilities(logits: Tensor) -> Tensor:
    raised = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    return raised.log_softmax(dim=-1)
