"""What is worth knowing of a task's data before anything is trained on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from peml.tasks.examples import Example
from peml.tasks.task import Task

UNEVEN = 10
"""A choice that is the answer so many times as often as another makes a note."""


def remarks(task: Task) -> Iterator[str]:
    """Yield a line for all that is odd in the data.

    Choices of very different frequency or that differ by case alone, answers that are all the
    same, empty prompts, and prompts that two splits share.

    Args:
        task: A task with its examples.
    """
    yield from _of_answers(task)
    known = {_asked(example) for example in task.splits["train"]}
    for split, examples in task.splits.items():
        if empty := sum(not example.prompt for example in examples):
            yield f"{task.name}: {empty} of {len(examples)} {split} prompts hold no text"
        again = sum(_asked(example) in known for example in examples)
        if split != "train" and again:
            yield f"{task.name}: {again} of {len(examples)} {split} prompts are in train as well"


def _of_answers(task: Task) -> Iterator[str]:
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
    if len(counts) == 1 and len(train) > 1:
        yield f"{task.name}: all {len(train)} training examples have the answer {train[0].answer!r}"
    seen: dict[str, str] = {}
    for choice in task.shared_choices:
        if (other := seen.setdefault(choice.casefold(), choice)) != choice:
            yield f"{task.name}: the choices {other!r} and {choice!r} differ by case alone"


def _count(pair: tuple[str, int]) -> int:
    return pair[1]


def _asked(example: Example) -> tuple[str, frozenset[str]]:
    return example.prompt, frozenset(example.choices)
