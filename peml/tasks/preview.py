"""What a task is, for people to look at before they train."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from peml.tasks.examples import Example
from peml.tasks.remarks import remarks
from peml.tasks.task import Task

_MOST_LABELS = 12
_WIDTH = 60


def summary(task: Task) -> str:
    """Return one line: name, kind, choices, metrics, counts, shots and beams."""
    parts = [f"{split} {len(found)}" for split, found in task.splits.items()]
    parts += [f"shots {len(task.shots)}"] if task.shots else []
    parts += [f"beams {task.num_beams}"] if task.num_beams > 1 else []
    counts = ", ".join(parts)
    choices = f" of {_listed(task.shared_choices)}" if task.shared_choices else ""
    return f"{task.name}: {task.kind}{choices}; {', '.join(task.metrics)}; {counts}"


def report(task: Task) -> Iterator[str]:
    """Yield the lines that describe a task: kind, choices, metrics, counts, what is odd in it."""
    yield f"task        {task.name}"
    yield f"kind        {task.kind}"
    if task.kind == "choice":
        own = "" if task.shared_choices else " (records have their own; the longest list)"
        yield f"choices     {_listed(task.choices)}{own}"
    yield f"metrics     {', '.join(task.metrics)}"
    for name, found in task.splits.items():
        yield f"{name:<12}{len(found)} examples; {_labels(task, found)}"
    for note in (*task.notes, *remarks(task)):
        yield f"note        {note}"
    if task.shots:
        yield f"shots       {len(task.shots)} examples; {_labels(task, task.shots)}"
    if task.num_beams > 1:
        yield f"beams       {task.num_beams}"


def document(task: Task) -> dict[str, Any]:
    """Return the same for programs."""
    return {
        "task": task.name,
        "kind": task.kind,
        "choices": list(task.choices) if task.kind == "choice" else None,
        "metrics": list(task.metrics),
        "examples_by_split": {split: len(found) for split, found in task.splits.items()},
        "notes": [*task.notes, *remarks(task)],
        "shots": len(task.shots),
        "num_beams": task.num_beams,
    }


def read_example(task: Task, example: Example, split: str) -> dict[str, str]:
    """Return what the model reads and writes of an example; see `shown`."""
    prompt = example.prompt if split == "train" else task.prompt(example)
    return {"id": example.id, "reads": prompt, "writes": " " + example.answer}


def shown(task: Task, example: Example, split: str) -> list[str]:
    """Return the lines that show an example as the model sees it, with blanks and line ends.

    Outside of ``train`` its prompt stands behind the shots, as it is scored.
    """
    read = read_example(task, example, split)
    return [read["id"], f"  reads   {read['reads']!r}", f"  writes  {read['writes']!r}"]


def _labels(task: Task, examples: tuple[Example, ...]) -> str:
    if task.kind == "regression":
        numbers = [float(example.label) for example in examples]
        mean = sum(numbers) / len(numbers)
        return f"{min(numbers):g} to {max(numbers):g}, mean {mean:g}"
    counts = Counter(example.answer for example in examples)
    if task.kind == "choice" and task.shared_choices:
        return ", ".join(f"{choice!r} {counts[choice]}" for choice in task.shared_choices)
    most = ", ".join(f"{_cut(answer)} {n}" for answer, n in counts.most_common(3))
    return f"{len(counts)} different answers, most often {most}"


def _listed(choices: tuple[str, ...]) -> str:
    more = f" and {len(choices) - _MOST_LABELS} more" if len(choices) > _MOST_LABELS else ""
    return ", ".join(map(repr, choices[:_MOST_LABELS])) + more


def _cut(text: str) -> str:
    return repr(text if len(text) <= _WIDTH else text[: _WIDTH - 3] + "...")
