"""Score what was trained, on its own tasks or on others."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import torch

from peml.adapters.adapted import Adapted
from peml.adapters.load import load
from peml.adapters.manifest import Manifest, read_manifest
from peml.answers.evaluation import Seen, evaluate_tasks
from peml.batches.collate import Collator
from peml.tasks.spec import check_split
from peml.tasks.task import Task, load_task, load_tasks
from prefixnas.base.errors import unknown

Source = str | PathLike[str] | Mapping[str, Any]
Sources = str | PathLike[str] | Sequence[Task | Source]


def evaluate(
    adapter: str | PathLike[str] | Adapted,
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
) -> dict[str, dict[str, float]]:
    """Compute the metrics of a trained adapter.

    Args:
        adapter: A run directory, an adapter folder, what `train` returned, or what `load` made of
            it.
        tasks: What to evaluate on, as `load_tasks` returns or takes it; None: the tasks that it was
            trained on, with their shots and beams.
        split: ``train``, ``selection`` or ``validation``.
        eval_limit: As for `load_tasks`, where tasks are loaded here.
        shots: The same; None: as in training, or none.
        num_beams: The same; None: as in training, or 1.
        max_length: Longest input in tokens; None: as in training.
        warn: Called with a line for each task whose prompts were cut to that length, or whose
            predictions are all the same.
        seen: Called with each task's examples and the answers that are scored.
        device: As for `load`, where `adapter` is a folder.
        dtype: As for `load`.
        model: As for `load`.

    Returns:
        ``{task: {metric: value}}``.

    Raises:
        UserError: Unknown split, an adapter or a task that can't be loaded, a task that an
            encoder-only model has no head for, one of other choices than it was trained with, or
            one that the model can't do.

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
    """
    check_split(split)
    manifest = adapter.manifest if isinstance(adapter, Adapted) else read_manifest(adapter)
    asked = _asked(manifest, tasks, eval_limit, shots, num_beams)
    asked = [_as_trained(task, manifest.choices(task.name)) for task in asked]
    adapted = adapter
    if not isinstance(adapted, Adapted):
        adapted = load(adapted, device=device, dtype=dtype, model=model)
    if adapted.heads is not None:
        for task in asked:
            if task.name not in adapted.heads.outputs:
                where = f"{adapted.folder}: heads"
                raise unknown("task", task.name, adapted.heads.outputs, where)
    collator = Collator(adapted.lm, max_length=max_length or manifest.max_length)
    evaluation = evaluate_tasks(
        adapted.lm, asked, split, heads=adapted.heads, collator=collator, warn=warn, seen=seen
    )
    for message in collator.truncation.messages():
        warn(message)
    return {task: dict(values) for task, values in evaluation.scores.items()}


def _asked(
    manifest: Manifest,
    tasks: Sources | None,
    eval_limit: int | None,
    shots: int | None,
    num_beams: int | None,
) -> list[Task]:
    """Return what to evaluate on; see `evaluate`."""
    if tasks is None:
        return trained_tasks(manifest, eval_limit=eval_limit, shots=shots, num_beams=num_beams)
    tasks = [tasks] if isinstance(tasks, str | PathLike) else tasks
    sources = [
        task if isinstance(task, Mapping) else fspath(task)
        for task in tasks
        if not isinstance(task, Task)
    ]
    loaded = [task for task in tasks if isinstance(task, Task)]
    if sources or not loaded:
        loaded += load_tasks(
            sources, eval_limit=eval_limit, shots=shots or 0, num_beams=num_beams or 1
        )
    return loaded


def trained_tasks(
    manifest: Manifest,
    *,
    eval_limit: int | None = None,
    shots: int | None = None,
    num_beams: int | None = None,
) -> list[Task]:
    """Load the tasks that an adapter was trained on, to be scored as in training.

    Args:
        manifest: What the adapter says of itself.
        eval_limit: At most so many selection and validation examples.
        shots: As in `load_tasks`; None: as in training.
        num_beams: Likewise.

    Raises:
        UserError: The manifest does not name them, or one can't be loaded.
    """
    return [
        load_task(
            source,
            eval_limit=eval_limit,
            shots=known.get("shots", 0) if shots is None else shots,
            num_beams=known.get("num_beams", 1) if num_beams is None else num_beams,
        )
        for source, known in zip(manifest.sources, manifest.tasks, strict=True)
    ]


def _as_trained(task: Task, choices: Sequence[str]) -> Task:
    """Return a task with its choices in the order in which they were trained."""
    return task.in_order_of(choices) if choices and task.kind == "choice" else task
