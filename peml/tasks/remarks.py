"""What is worth knowing of a task's data before anything is trained on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from peml.tasks.examples import Example
from peml.tasks.task import Task

UNEVEN = 10
"""A choice that is the answer so many times as often as another makes a note."""


def remarks(task: Task) -> Iterator[str]:
    """Yield a line for choices of very different frequency, and for prompts that two splits share.

    Args:
        task: A task with its examples.
    """
    train = task.splits["train"]
    counts = Counter(example.answer for example in train)
    found = [(choice, counts[choice]) for choice in task.shared_choices]
    if found:
        (most, many), (least, few) = max(found, key=_count), min(found, key=_count)
        if many >= UNEVEN * max(few, 1):
            yield (
                f"{task.name}: {most!r} is the answer of {many} of {len(train)} training examples, "
                f"{least!r} of {few}; accuracy hides that, macro_f1 does not"
            )
    known = {_asked(example) for example in train}
    for split, examples in task.splits.items():
        again = sum(_asked(example) in known for example in examples)
        if split != "train" and again:
            yield f"{task.name}: {again} of {len(examples)} {split} prompts are in train as well"


def _count(pair: tuple[str, int]) -> int:
    return pair[1]


def _asked(example: Example) -> tuple[str, frozenset[str]]:
    return example.prompt, frozenset(example.choices)
