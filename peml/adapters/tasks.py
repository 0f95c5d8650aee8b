"""What an adapter keeps of a task, and the task that it makes of it to answer new records."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from peml.adapters.manifest import Manifest
from peml.batches.collate import Collator
from peml.tasks.chat import Turn
from peml.tasks.examples import Example
from peml.tasks.load import load_task
from peml.tasks.spec import Chat
from peml.tasks.task import Task
from prefixnas.base.errors import UserError, unknown


def described(task: Task, source: str, collator: Collator) -> dict[str, Any]:
    """Return what a manifest says of a task.

    Args:
        task: The task.
        source: Where it came from.
        collator: Of the language model that was trained.
    """
    return {
        "name": task.name,
        "kind": task.kind,
        "choices": list(task.shared_choices),
        "source": source,
        "max_length": collator.max_length,
        "template": task.template,
        "choices_field": task.choices_field,
        "max_new_tokens": task.max_new_tokens,
        "longest_answer": collator.longest_answer(task),
        "shots": len(task.shots),
        "shown": [_shown(shot) for shot in task.shots],
        "num_beams": task.num_beams,
        "chat": task.chat,
        **({"scale": list(task.label_scale())} if task.kind == "regression" else {}),
    }


def _shown(shot: Example) -> dict[str, Any]:
    turns = [list(turn) for turn in shot.turns]
    return {"prompt": shot.prompt, "answer": shot.answer, **({"turns": turns} if turns else {})}


def trained_task(manifest: Manifest, name: str | None, folder: Path) -> Task:
    """Return a task that an adapter was trained on, as new records need it.

    Its examples are read only where the adapter is of an earlier version, which kept less of it.

    Args:
        manifest: What the adapter says of itself.
        name: The task's name; None: the only one.
        folder: The adapter folder, for messages.

    Raises:
        UserError: There is no such task, or several and no name.
    """
    known = {str(task.get("name")): task for task in manifest.tasks}
    if name is None and len(known) != 1:
        listed = ", ".join(known) or "none"
        raise UserError(f"{folder}: say with --task which task to answer (there: {listed})")
    name = next(iter(known)) if name is None else name
    if name not in known:
        raise unknown("task", name, known, str(folder))
    kept = known[name]
    shots = shots_of(kept)
    if "template" not in kept or shots is None:
        return _read_again(kept, name)
    choices = tuple(kept.get("choices", ()))
    return Task(
        name,
        kept["kind"],
        choices,
        (),
        None,
        {},
        kept.get("max_new_tokens"),
        kept["template"],
        kept.get("choices_field"),
        shots=shots,
        num_beams=kept.get("num_beams", 1),
        chat=kept.get("chat"),
    )


def shots_of(kept: Mapping[str, Any]) -> tuple[Example, ...] | None:
    """Return what stood in front of a task's prompts; None: an earlier version did not keep it."""
    if kept.get("shots") and "shown" not in kept:
        return None
    return tuple(
        Example(
            shot["prompt"],
            shot["answer"],
            shot["answer"],
            f"shot:{place}",
            turns=tuple(Turn(*turn) for turn in shot.get("turns", ())),
        )
        for place, shot in enumerate(kept.get("shown", ()))
    )


def asked_alike(
    task: Task,
    manifest: Manifest,
    *,
    shots: int | None = None,
    num_beams: int | None = None,
    warn: Callable[[str], object],
) -> Task:
    """Return a task with the shots and beams of the one of its name in training, if there was one.

    Args:
        task: The task.
        manifest: What the adapter says of itself.
        shots: How many the user asked for: those that the task has; None: as in training.
        num_beams: Likewise.
        warn: Called with a line where an earlier version did not keep the shots.
    """
    kept = next((entry for entry in manifest.tasks if entry.get("name") == task.name), None)
    if kept is None:
        return task
    if num_beams is None and task.kind == "generation":
        task = replace(task, num_beams=kept.get("num_beams", 1))
    if shots is None and (found := shots_of(kept)) is not None:
        return replace(task, shots=found)
    if shots is None and not task.shots:
        warn(f"{task.name}: is asked without shots: an earlier version did not keep those")
    return task


def _read_again(kept: Mapping[str, Any], name: str) -> Task:
    if "source" not in kept:
        raise UserError(f"the adapter does not say where its task {name!r} came from")
    shots, beams = kept.get("shots", 0), kept.get("num_beams", 1)
    chat: Chat = kept.get("chat") or "auto"
    task = load_task(kept["source"], shots=shots, num_beams=beams, chat=chat)
    choices = kept.get("choices", ())
    return task.in_order_of(choices) if choices and task.kind == "choice" else task
