"""What the format `merged` leaves out, and what the model scores without it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from torch import Tensor

from peml.adapters.adapted import Adapted
from peml.adapters.evaluate import evaluate, trained_tasks
from peml.prefix.handle import attach
from peml.tasks.task import Task
from prefixnas.base.errors import UserError

EXAMPLES = 50
"""So many validation examples a task are scored with the prefix and without it."""

_INSTEAD = "the format 'peml' keeps all together"
WITHOUT_HEADS = f"its task heads are left out: {_INSTEAD}"


def left_out(adapted: Adapted, blocks: Tensor | None, task: str | None = None) -> str:
    """Say in a line what a merged model lacks of what was trained; an empty one if nothing.

    Args:
        adapted: The merged model, without its prefix.
        blocks: The prefix, ``[sites, 2, kv_heads, l, head_dim]``.
        task: The only task that it was merged for.
    """
    if blocks is None:
        return "" if adapted.heads is None else WITHOUT_HEADS
    scores = with_and_without(adapted, blocks, task)
    if scores is None:
        said = "without its prefix the model is worse than what was trained"
    else:
        worse = "worse: it scores" if scores[1] < scores[0] else "another one: it scores"
        said = (
            f"without its prefix the model is {worse} {scores[1]:.3f} instead of {scores[0]:.3f} "
            f"(validation, at most {EXAMPLES} examples a task)"
        )
    return f"{said}; 'merged' is for runtimes that add prefix.safetensors, {_INSTEAD}"


def with_and_without(
    adapted: Adapted, blocks: Tensor, task: str | None = None
) -> tuple[float, float] | None:
    """Return the average score with the prefix and without it; None: the tasks are not to be had.

    Args:
        adapted: The merged model, without its prefix.
        blocks: The prefix, ``[sites, 2, kv_heads, l, head_dim]``.
        task: The only task that it was merged for.
    """
    try:
        tasks = trained_tasks(adapted.manifest, eval_limit=EXAMPLES)
        tasks = [each for each in tasks if task in (None, each.name)]
        without = _score(adapted, tasks)
        handle = attach(adapted.model, adapted.manifest.sites, adapted.manifest.attention)
        try:
            with handle.using(blocks):
                return _score(adapted, tasks), without
        finally:
            handle.detach()
    except UserError:  # files that are gone, or others by now: the export does not need them
        return None


def _score(adapted: Adapted, tasks: Sequence[Task]) -> float:
    scores = evaluate(adapted, tasks, warn=lambda message: None).values()
    return mean(mean(each.values()) for each in scores)
