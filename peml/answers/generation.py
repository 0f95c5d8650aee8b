"""Writing answers: token by token, the likeliest or the best of several beams."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from peml.answers.beginning import Beginning
from peml.batches.collate import Collator
from peml.tasks.task import SHOT_END

if TYPE_CHECKING:
    from peml.tasks.examples import Example
    from peml.tasks.task import Task


def generate_answers(
    collator: Collator,
    task: Task,
    examples: Sequence[Example],
    beginning: Beginning | None = None,
) -> list[str]:
    """Write answers in one batch, as long as the longest training answer at most.

    Args:
        collator: Tokenises for the language model ``collator.lm``, a decoder or encoder-decoder.
        task: A task of generation or regression.
        examples: Some of its examples.
        beginning: What the prompts of all these examples begin with, as a decoder has read it.
    """
    import transformers

    # The class has no annotations.
    make_configuration: Any = transformers.GenerationConfig
    model: Any = collator.lm.model
    text = collator.text
    configuration = make_configuration(
        max_new_tokens=task.max_new_tokens or collator.longest_answer(task),
        do_sample=False,
        num_beams=task.num_beams,
        pad_token_id=text.pad,
        eos_token_id=list(collator.ends(task)) or None,
        bos_token_id=text.start,
        decoder_start_token_id=getattr(model.config, "decoder_start_token_id", None),
    )
    inputs = _inputs(collator, task, examples, beginning or Beginning())
    skip = inputs["input_ids"].shape[1] if collator.lm.family == "decoder" else 0
    # A model that was shown shots goes on with another one behind its answer.
    blank_ends = not any(SHOT_END in shot.answer for shot in task.shots)
    ends = bool(task.shots) and blank_ends and collator.chat_of(task) is None
    if ends:
        stop = _stop(collator, skip)
        inputs["stopping_criteria"] = transformers.StoppingCriteriaList([stop])
    written = model.generate(**inputs, generation_config=configuration)
    answers = [text.raw(row) for row in written[:, skip:].tolist()]
    return [(answer.split(SHOT_END)[0] if ends else answer).strip() for answer in answers]


def _stop(collator: Collator, skip: int) -> Callable[..., Tensor]:
    """Return what tells which rows have ended, from their tokens ``[b, skip + t]``."""

    def ended(ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        found = [SHOT_END in collator.text.raw(row) for row in ids[:, skip:].tolist()]
        return torch.tensor(found, device=ids.device)

    return ended


def _inputs(
    collator: Collator, task: Task, examples: Sequence[Example], beginning: Beginning
) -> dict[str, Any]:
    """Return what `generate` takes: it wants to see the tokens that are in the cache too."""
    if collator.lm.family != "decoder":
        prompts = collator.prompts(task, examples)
        return {name: tensor.to(collator.lm.device) for name, tensor in prompts.items()}
    rows = [collator.prompt(task, example) for example in examples]
    inputs: dict[str, Any] = beginning.inputs(collator, rows)
    del inputs["position_ids"]  # it counts real tokens itself
    if beginning.ids:
        first = torch.tensor([beginning.ids], device=collator.lm.device).expand(len(rows), -1)
        inputs["input_ids"] = torch.cat([first, inputs["input_ids"]], dim=1)
        inputs["past_key_values"] = beginning.cache()
    return inputs
