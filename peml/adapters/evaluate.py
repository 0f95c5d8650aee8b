"""Score what was trained, on its own tasks or on others."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import torch

from peml.adapters.load import Trained, manifest_of, opened
from peml.adapters.manifest import Manifest
from peml.adapters.tasks import asked_alike
from peml.answers.evaluation import Seen, evaluate_tasks
from peml.batches.collate import Collator
from peml.tasks.load import load_task, load_tasks, named_apart
from peml.tasks.sources import each_source
from peml.tasks.spec import check_count, check_split
from peml.tasks.task import Task
from prefixnas.base.errors import UserError
from prefixnas.run.evaluation import Evaluation

Source = str | PathLike[str] | Mapping[str, Any]
Sources = Task | Source | Sequence[Task | Source]


class Scores(dict[str, dict[str, float]]):
    """``{task: {metric: value}}`` of a model on a split.

    Attributes:
        evaluation: The same, with each task's score, their mean, and how far these scatter with
            the examples: what a column of a run's table holds.
    """

    def __init__(self, evaluation: Evaluation) -> None:
        super().__init__({task: dict(values) for task, values in evaluation.scores.items()})
        self.evaluation = evaluation


def evaluate(
    adapter: Trained,
    tasks: Sources | None = None,
    split: str = "validation",
    *,
    eval_limit: int | None = None,
    shots: int | None = None,
    num_beams: int | None = None,
    max_length: int | None = None,
    warn: Callable[[str], object] = warnings.warn,
    seen: Seen = lambda task, examples, answers: None,
    device: str | torch.device = "auto",
    dtype: str = "auto",
    model: str | Path | None = None,
) -> Scores:
    """Compute the metrics of a trained adapter.

    Args:
        adapter: A run directory, an adapter folder, what `train` returned, or what `load` made of
            it.
        tasks: What to evaluate on, as `load_tasks` returns or takes it; None: the tasks that it was
            trained on, with their shots and beams. One that has the name of one of these is asked
            as that was, for answers as long.
        split: ``train``, ``selection``, ``validation`` or ``test``.
        eval_limit: As for `load_tasks`, where tasks are loaded here.
        shots: The same; None: as in training, or none.
        num_beams: The same; None: as in training, or 1.
        max_length: Longest input in tokens; None: as in training.
        warn: Called with a line for each task whose prompts were cut to that length, whose
            predictions are all the same, or that has no such split.
        seen: Called with each task's examples and the answers, as the model gave them.
        device: As for `load`, where `adapter` is a folder.
        dtype: As for `load`.
        model: As for `load`.

    Returns:
        ``{task: {metric: value}}``; its attribute `evaluation` has the standard errors as well.

    Raises:
        UserError: Unknown split, or none of the tasks has it, an adapter or a task that can't be
            loaded, two tasks of one name, a task that an encoder-only model has no head for, one of
            other choices than it was trained with, or one that the model can't do.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> import peml
        >>> config = peml.LanguageModelConfig(tasks=["embedded:sentiment"], train_limit=20)
        >>> objective = config.build(total_steps=1, seed=0)
        >>> objective.reset(None, seed=0)  # LoRA as it starts; a run would train it now
        >>> with TemporaryDirectory() as folder:
        ...     objective.save(Path(folder))
        ...     scores = peml.evaluate(folder, ["embedded:sentiment"], eval_limit=20)
        >>> [(task, *metrics) for task, metrics in scores.items()]
        [('sentiment', 'accuracy')]
        >>> sorted(scores.evaluation.standard_errors)
        ['sentiment']
    """
    check_split(split)
    check_count("max_length", max_length)
    manifest = manifest_of(adapter)
    asked = _asked(manifest, tasks, eval_limit, shots, num_beams, warn)
    having = _having(split, [as_trained(task, manifest) for task in asked], warn)
    adapted = opened(adapter, device, dtype, model)
    adapted.check_heads(task.name for task in having)
    length = max_length or manifest.max_length
    collator = Collator(adapted.lm, max_length=length, longest=manifest.longest_answers)
    evaluation = evaluate_tasks(
        adapted.lm, having, split, heads=adapted.heads, collator=collator, warn=warn, seen=seen
    )
    for message in collator.truncation.messages():
        warn(message)
    return Scores(evaluation)


def _having(split: str, tasks: Sequence[Task], warn: Callable[[str], object]) -> Sequence[Task]:
    """Return the tasks that have a split.

    Raises:
        UserError: None of them has.
    """
    found = [task for task in tasks if split in task.splits]
    for task in tasks:
        if split not in task.splits:
            said = f"task {task.name!r} has no {split} split (there: {', '.join(task.splits)})"
            if not found:
                raise UserError(said)
            warn(said)
    return found


def _asked(
    manifest: Manifest,
    tasks: Sources | None,
    eval_limit: int | None,
    shots: int | None,
    num_beams: int | None,
    warn: Callable[[str], object],
) -> list[Task]:
    """Return what to evaluate on; see `evaluate`."""
    if tasks is None:
        return trained_tasks(
            manifest, eval_limit=eval_limit, shots=shots, num_beams=num_beams, warn=warn
        )
    tasks = each_source(tasks, Task)
    sources = [
        task if isinstance(task, Mapping) else fspath(task)
        for task in tasks
        if not isinstance(task, Task)
    ]
    asked = partial(asked_alike, manifest=manifest, warn=warn)
    loaded = [
        asked(task, shots=len(task.shots) or None, num_beams=_more_than_one(task.num_beams))
        for task in tasks
        if isinstance(task, Task)
    ]
    if sources or not loaded:
        found = load_tasks(
            sources,
            eval_limit=eval_limit,
            shots=0 if shots is None else shots,
            num_beams=1 if num_beams is None else num_beams,
        )
        loaded += [asked(task, shots=shots, num_beams=num_beams) for task in found]
    return named_apart(loaded)


def _more_than_one(beams: int) -> int | None:
    return beams if beams > 1 else None


def trained_tasks(
    manifest: Manifest,
    *,
    eval_limit: int | None = None,
    shots: int | None = None,
    num_beams: int | None = None,
    warn: Callable[[str], object] = warnings.warn,
) -> list[Task]:
    """Load the tasks that an adapter was trained on, to be scored as in training.

    Args:
        manifest: What the adapter says of itself.
        eval_limit: At most so many selection and validation examples.
        shots: As in `load_tasks`; None: as in training.
        num_beams: Likewise.
        warn: Called with a line where an earlier version did not keep the shots.

    Raises:
        UserError: The manifest does not name them, or one can't be loaded.
    """
    found = (
        load_task(
            source,
            eval_limit=eval_limit,
            shots=known.get("shots", 0) if shots is None else shots,
            num_beams=1 if num_beams is None else num_beams,
        )
        for source, known in zip(manifest.sources, manifest.tasks, strict=True)
    )
    return [
        asked_alike(task, manifest, shots=shots, num_beams=num_beams, warn=warn) for task in found
    ]


def as_trained(task: Task, manifest: Manifest) -> Task:
    """Return a task with choices, conversations and the scale of labels as in training."""
    if task.kind == "regression":
        return replace(task, trained_scale=manifest.scale(task.name))
    choices = manifest.choices(task.name)
    if task.chat is not None:
        return replace(task, chat=manifest.chat(task.name))
    return task.in_order_of(choices) if choices and task.kind == "choice" else task
