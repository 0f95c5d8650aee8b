"""What an adapter keeps of a task, and the task that it makes of it to answer new records."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peml.adapters.manifest import Manifest
from peml.batches.collate import Collator
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
        "num_beams": task.num_beams,
        "chat": task.chat,
    }


def trained_task(manifest: Manifest, name: str | None, folder: Path) -> Task:
    """Return a task that an adapter was trained on, as new records need it.

    Its examples are read only where prompts stand behind some of them, or where the adapter is of
    an earlier version, which kept less of it.

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
    if "template" not in kept or kept.get("shots"):
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
        num_beams=kept.get("num_beams", 1),
        chat=kept.get("chat"),
    )


def _read_again(kept: Mapping[str, Any], name: str) -> Task:
    if "source" not in kept:
        raise UserError(f"the adapter does not say where its task {name!r} came from")
    shots, beams = kept.get("shots", 0), kept.get("num_beams", 1)
    chat: Chat = kept.get("chat") or "auto"
    task = load_task(kept["source"], shots=shots, num_beams=beams, chat=chat)
    choices = kept.get("choices", ())
    return task.in_order_of(choices) if choices and task.kind == "choice" else task
