"""The splits of a task: what is set aside from the training examples, and what limits leave."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from peml.tasks.examples import Example, with_parts
from peml.tasks.spec import SPLITS
from prefixnas.base.errors import UserError

VALIDATION_SHARE, SELECTION_SHARE = 0.2, 0.1
"""How much of the training examples becomes a split that is not there, if the task does not say."""


def split_examples(
    examples: Mapping[str, list[Example]],
    *,
    share: float,
    limits: Mapping[str, int | None],
    shots: int,
    parts: bool = False,
    name: str,
    seed: int,
) -> tuple[dict[str, tuple[Example, ...]], tuple[Example, ...]]:
    """Set splits that are not there aside from train: validation, selection, then the shots.

    This comes before the limits, so that it does not depend on them.

    Args:
        examples: Those of each split that is there, ``train`` at least.
        share: How much of train becomes ``selection``.
        limits: Most examples by split.
        shots: How many examples stand in front of prompts.
        parts: Whether earlier answers of a training conversation are examples, too.
        name: The task's, for the draws.
        seed: Of the draws.

    Returns:
        The splits and the shots.

    Raises:
        UserError: There are too few training examples.
    """
    splits = dict(examples)
    for split, part in (("validation", VALIDATION_SHARE), ("selection", share)):
        if split in splits:
            continue
        train = splits["train"]
        if len(train) < 2:
            raise UserError(f"task {name!r}: the train split needs at least two examples")
        count = min(max(1, int(part * len(train))), len(train) - 1)
        chosen = set(random.Random(f"{split}/{name}/{seed}").sample(range(len(train)), count))
        splits[split] = [train[i] for i in sorted(chosen)]
        splits["train"] = [example for i, example in enumerate(train) if i not in chosen]
    train = splits["train"]
    if shots >= len(train):
        raise UserError(
            f"task {name!r}: {shots} shots leave none of {len(train)} training examples"
        )
    drawn = random.Random(f"shots/{name}/{seed}").sample(range(len(train)), shots)
    splits["train"] = [example for i, example in enumerate(train) if i not in drawn]
    if parts:
        splits["train"] = [part for example in splits["train"] for part in with_parts(example)]
    limited = {
        split: tuple(take(splits[split], limits[split], f"{split}/{name}/{seed}"))
        for split in SPLITS
        if split in splits
    }
    return limited, tuple(train[i] for i in drawn)


def take(examples: Sequence[Example], limit: int | None, seed: str) -> list[Example]:
    """Return at most ``limit`` examples, drawn by the seed, in their own order."""
    if limit is None or limit >= len(examples):
        return list(examples)
    chosen = random.Random(seed).sample(range(len(examples)), limit)
    return [examples[i] for i in sorted(chosen)]
