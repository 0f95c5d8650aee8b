"""Tasks from a specification, or straight from a folder or a file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from peml.tasks.chat import are_conversations, check_shape
from peml.tasks.examples import Example, Form, in_one_order
from peml.tasks.files import FORMATS, Records
from peml.tasks.labels import (
    are_texts,
    fixed_choices,
    infer_metrics,
    is_labelled,
    label_choices,
    labels_repeat,
    lists_choices,
)
from peml.tasks.metrics import check_metrics
from peml.tasks.sources import each_source, embedded_tasks, is_embedded, is_one_file, read_records
from peml.tasks.spec import SPLITS, Chat, TaskKind, TaskSpec, check_count, make_spec, read_spec
from peml.tasks.splits import SELECTION_SHARE, split_examples
from peml.tasks.task import Task
from prefixnas.base.errors import UserError, nearest


def load_tasks(
    sources: str | Path | Mapping[str, Any] | Iterable[str | Path | Mapping[str, Any]],
    *,
    seed: int = 0,
    train_limit: int | None = None,
    eval_limit: int | None = None,
    shots: int = 0,
    num_beams: int = 1,
    chat: Chat = "auto",
    folder: Path = Path(),
) -> list[Task]:
    """Load several tasks; ``embedded`` stands for the whole embedded suite.

    Args:
        sources: As for `load_task`; one may stand alone.
        seed: As for `load_task`.
        train_limit: As for `load_task`.
        eval_limit: As for `load_task`.
        shots: As for `load_task`.
        num_beams: As for `load_task`.
        chat: As for `load_task`.
        folder: What relative paths start from.

    Raises:
        UserError: No task, what is no source, two tasks of one name, or what `load_task` raises.

    Example:
        >>> from peml import load_tasks
        >>> [task] = load_tasks(["embedded:sentiment"], train_limit=100)
        >>> task.kind, task.choices, task.metrics
        ('choice', ('negative', 'positive'), ('accuracy',))
        >>> len(task.splits["train"]), len(task.splits["validation"])
        (100, 300)
    """
    expanded: list[str | Path | Mapping[str, Any]] = []
    for source in each_source(sources):
        expanded.extend(embedded_tasks() if source == "embedded" else [source])
    tasks = named_apart(
        load_task(
            source,
            seed=seed,
            train_limit=train_limit,
            eval_limit=eval_limit,
            shots=shots,
            num_beams=num_beams,
            chat=chat,
            folder=folder,
        )
        for source in expanded
    )
    if not tasks:
        raise UserError("no task given: name a folder, a task file or 'embedded'")
    return tasks


def named_apart(tasks: Iterable[Task]) -> list[Task]:
    """Return tasks as a list.

    Raises:
        UserError: Two of them have one name.
    """
    found: dict[str, Task] = {}
    for task in tasks:
        if task.name in found:
            raise UserError(f"two tasks are named {task.name!r}; set the key 'name' of one")
        found[task.name] = task
    return list(found.values())


def load_task(
    source: str | Path | Mapping[str, Any],
    *,
    seed: int = 0,
    train_limit: int | None = None,
    eval_limit: int | None = None,
    shots: int = 0,
    num_beams: int = 1,
    chat: Chat = "auto",
    folder: Path = Path(),
) -> Task:
    """Load one task.

    Args:
        source: A YAML file; a folder (with ``task.yaml``, or with ``train.jsonl`` and
            ``validation.jsonl`` of ``input``, ``choices`` and ``label``); a single data file, which
            is split by the seed; ``embedded:<task>``; or a mapping with the keys of a task file.
        seed: Chooses the selection split, the shots, and which examples a limit leaves.
        train_limit: At most so many training examples (the smaller of this and the file's).
        eval_limit: The same for the examples of each split that is scored.
        shots: Training examples in front of every prompt that is scored, where the task's own
            specification says nothing of it.
        num_beams: The same for the beams of a generation task.
        chat: The same for how conversations are read.
        folder: What relative paths start from.

    Raises:
        UserError: Anything wrong in the specification or the data, in one line.
    """
    for key, value in (("train_limit", train_limit), ("eval_limit", eval_limit)):
        check_count(key, value)
    check_count("shots", shots, 0)
    check_count("num_beams", num_beams)
    spec = _find_spec(source, folder)
    records = read_records(spec, seed=seed)
    one = is_one_file(spec)
    _check_splits(spec, records, one)
    talks = are_conversations(spec, records["train"])
    unlabelled = "test" in records and not is_labelled(spec, records["test"], talks=talks)
    if unlabelled:
        del records["test"]
    name = spec.name or _default_name(spec)
    check_shape(spec, records["train"])
    named, spec = spec, _with_choices(spec, records, one)
    form = Form.of(spec, records)
    _check_chat(spec, form.talks)
    examples = _examples(form, records)
    choices = max((e.choices for found in examples.values() for e in found), key=len)
    metrics = spec.metrics or infer_metrics(name, form.kind, records, spec)
    check_metrics(metrics, form.kind, len(choices), spec.where("metrics"))
    splits, shown = split_examples(
        examples,
        share=spec.selection or SELECTION_SHARE,
        limits=_limits(spec, train_limit, eval_limit),
        shots=shots if spec.shots is None else spec.shots,
        parts=spec.train_on == "all-assistant",
        name=name,
        seed=seed,
    )
    notes = _notes(name, splits, spec.choices if spec is not named else None) if one else ()
    if unlabelled:
        notes = (*notes, f"{name}: the records of its test split have no labels; it is left out")
    return Task(
        name,
        form.kind,
        choices,
        metrics,
        spec.gamma,
        splits,
        max_new_tokens=spec.max_new_tokens,
        template=spec.template,
        choices_field=form.choices_field,
        notes=notes,
        shots=shown,
        num_beams=_beams(spec, form.kind, num_beams),
        chat=(spec.chat or chat) if form.talks else None,
    )


def _check_splits(spec: TaskSpec, records: Mapping[str, Records], one: bool) -> None:
    """Refuse a task without the splits that it needs; one file is split later."""
    for split in ("train", "validation"):
        if split not in records and not one:
            raise UserError(f"{spec.where('source')}: the task has no {split} split")
    for found in records.values():
        if not found.rows:
            raise UserError(f"{found.origin}: there is no record")


def _examples(form: Form, records: Mapping[str, Records]) -> dict[str, list[Example]]:
    examples = {
        split: [form.example(found, index, split) for index in range(len(found.rows))]
        for split, found in records.items()
    }
    return in_one_order(examples) if form.kind == "choice" else examples


def _limits(spec: TaskSpec, train: int | None, scored: int | None) -> dict[str, int | None]:
    """Return the most examples of each split: the smaller one of the run's limit and the task's."""
    scored = _smaller(scored, spec.eval_limit)
    return {"train": _smaller(train, spec.train_limit), **dict.fromkeys(SPLITS[1:], scored)}


def _beams(spec: TaskSpec, kind: TaskKind, default: int) -> int:
    if kind == "generation":
        return spec.num_beams or default
    if spec.num_beams is not None:
        raise UserError(f"{spec.where('num_beams')}: is for generation tasks, not for {kind} tasks")
    return 1


def _check_chat(spec: TaskSpec, talks: bool) -> None:
    """Refuse keys of conversations for a task that has none."""
    for key in ("train_on", "chat"):
        if getattr(spec, key) is not None and not talks:
            raise UserError(
                f"{spec.where(key)}: is for conversations ('messages', 'prompt' and 'completion', "
                "'instruction' and 'output'), which the records are not"
            )


def _with_choices(spec: TaskSpec, records: Mapping[str, Records], one: bool) -> TaskSpec:
    """Return the specification with the labels as choices, where it leaves the choices to them."""
    left = spec.choices is None and spec.label_map is None and spec.answer is None
    if are_conversations(spec, records["train"]):
        return spec
    if not left or fixed_choices(spec, records) or lists_choices(spec, records):
        return spec
    classes = one and spec.kind is None and labels_repeat(spec, records["train"])
    if (spec.kind == "choice" or classes) and are_texts(spec, records):
        found = label_choices(spec, records)
        return replace(spec, kind="choice", choices=found, label_is=spec.label_is or "text")
    return spec


def _notes(
    name: str, splits: Mapping[str, Sequence[Example]], choices: Sequence[str] | str | None
) -> tuple[str, ...]:
    """Say how one file was read."""
    counts = ", ".join(f"{split} {len(found)}" for split, found in splits.items())
    cut = f"{name}: one file, split by a fixed seed: {counts}"
    if choices is None:
        return (cut,)
    return cut, f"{name}: its labels repeat, so they are the choices: {', '.join(choices)}"


def _find_spec(source: str | Path | Mapping[str, Any], folder: Path) -> TaskSpec:
    if isinstance(source, Mapping):
        return make_spec(source, folder=folder)
    if source == "embedded":
        raise UserError("'embedded' is a suite of tasks; name one as 'embedded:<task>'")
    if is_embedded(source):
        return TaskSpec(source=str(source))
    path = (folder / Path(source)).expanduser()
    if path.suffix in (".yaml", ".yml"):
        return read_spec(path)
    if path.is_dir():
        file = path / "task.yaml"
        return read_spec(file) if file.is_file() else TaskSpec(source=None, folder=path)
    if path.is_file():
        if path.suffix.lower() in FORMATS:
            return TaskSpec(source=str(source), folder=folder)
        raise UserError(
            f"{path}: a task is a folder, a YAML file or a data file ({', '.join(FORMATS)})"
        )
    siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    raise UserError(
        f"no task {str(source)!r}{nearest(path.name, siblings)} "
        "(allowed: a folder, a YAML or data file, 'embedded', 'embedded:<task>'; a hub dataset is "
        "named in a YAML file)"
    )


def _default_name(spec: TaskSpec) -> str:
    if spec.file is not None and spec.file.name != "task.yaml":
        name = spec.file.stem
    elif isinstance(spec.source, str):
        local = spec.folder / Path(spec.source).expanduser()
        last = re.split(r"[/:]", spec.source.rstrip("/"))[-1]
        if local.exists():
            last = local.stem if local.is_file() else local.resolve().name
        name = spec.config or last
    else:
        name = spec.folder.resolve().name
    return re.sub(r"[^\w-]+", "_", name) or "task"


def _smaller(first: int | None, second: int | None) -> int | None:
    given = [limit for limit in (first, second) if limit is not None]
    return min(given) if given else None
