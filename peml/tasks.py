"""Tasks: prompts, answers and labels, from a specification or straight from a folder."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peml.metrics import check_metrics, default_metrics
from peml.task_sources import Record, Records, embedded_tasks, is_embedded, read_records
from peml.task_spec import Kind, TaskSpec, make_spec, read_spec
from peml.templates import MissingField, check_template, lookup, render
from prefixnas.errors import UserError, nearest

SELECTION_SHARE = 0.1


@dataclass(frozen=True)
class Example:
    """One example of a task.

    Attributes:
        prompt: The whole text in front of the answer.
        answer: What the model is to say: a choice, a number with one decimal, or a text.
        label: Index of the right choice, a number, or (generation) the answer again.
        id: Unique within the task: split of the source and position there.
        choices: What the answer is chosen from; empty unless the task is a choice task.
    """

    prompt: str
    answer: str
    label: int | float | str
    id: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """A task with its examples.

    Attributes:
        name: Short name.
        kind: ``choice`` (likelihood of each choice), ``regression`` or ``generation``.
        choices: Answer texts of a choice task (where examples have their own, the longest list),
            else empty.
        metrics: Names of metrics; their mean is the task's score.
        gamma: Sampling weight of eq. 1; None: the run's.
        splits: ``train``, ``selection`` (set aside from train: for alpha steps on held-out
            batches, early stopping and choosing) and ``validation`` (only ever reported).
        max_new_tokens: Generation only; None: the longest training answer.
    """

    name: str
    kind: Kind
    choices: tuple[str, ...]
    metrics: tuple[str, ...]
    gamma: float | None
    splits: Mapping[str, tuple[Example, ...]] = field(repr=False)
    max_new_tokens: int | None = None

    @property
    def n_outputs(self) -> int:
        """Outputs that a classification or regression head needs; 0 for generation."""
        return {"choice": len(self.choices), "regression": 1, "generation": 0}[self.kind]

    def label_scale(self) -> tuple[float, float]:
        """Return mean and standard deviation of the training labels; (0, 1) if not numbers."""
        if self.kind != "regression":
            return 0.0, 1.0
        labels = [float(example.label) for example in self.splits["train"]]
        mean = sum(labels) / len(labels)
        deviation = (sum((label - mean) ** 2 for label in labels) / len(labels)) ** 0.5
        return mean, deviation or 1.0


def load_tasks(
    sources: Iterable[str | Path | Mapping[str, Any]],
    *,
    seed: int = 0,
    train_limit: int | None = None,
    eval_limit: int | None = None,
    folder: Path = Path(),
) -> list[Task]:
    """Load several tasks; ``embedded`` stands for the whole embedded suite.

    Args:
        sources: As for `load_task`.
        seed: As for `load_task`.
        train_limit: As for `load_task`.
        eval_limit: As for `load_task`.
        folder: What relative paths start from.

    Raises:
        UserError: No task, two tasks of one name, or what `load_task` raises.
    """
    expanded: list[str | Path | Mapping[str, Any]] = []
    for source in sources:
        expanded.extend(embedded_tasks() if source == "embedded" else [source])
    tasks: dict[str, Task] = {}
    for source in expanded:
        task = load_task(
            source, seed=seed, train_limit=train_limit, eval_limit=eval_limit, folder=folder
        )
        if task.name in tasks:
            raise UserError(f"two tasks are named {task.name!r}; set the key 'name' of one")
        tasks[task.name] = task
    if not tasks:
        raise UserError("no task given: name a folder, a task file or 'embedded'")
    return list(tasks.values())


def load_task(
    source: str | Path | Mapping[str, Any],
    *,
    seed: int = 0,
    train_limit: int | None = None,
    eval_limit: int | None = None,
    folder: Path = Path(),
) -> Task:
    """Load one task.

    Args:
        source: A YAML file; a folder (with ``task.yaml``, or with ``train.jsonl`` and
            ``validation.jsonl`` of ``input``, ``choices`` and ``label``); ``embedded:<task>``;
            or a mapping with the keys of a task file.
        seed: Chooses the selection split and which examples a limit leaves.
        train_limit: At most so many training examples (the smaller of this and the file's).
        eval_limit: The same for selection and validation examples.
        folder: What relative paths start from.

    Raises:
        UserError: Anything wrong in the specification or the data, in one line.
    """
    spec = _find_spec(source, folder)
    records = read_records(spec, seed=seed)
    for split in ("train", "validation"):
        if split not in records:
            raise UserError(f"{spec.where('source')}: the task has no {split} split")
    for found in records.values():
        if not found.rows:
            raise UserError(f"{found.origin}: the split is empty")
    name = spec.name or _default_name(spec)
    choices = _fixed_choices(spec, records["train"])
    has_choices = bool(choices or _record_choices(spec, records["train"], 0))
    kind = spec.kind or _infer_kind(spec, records["train"], has_choices)
    metrics = spec.metrics or _default_metrics(name, kind, records["train"], spec)
    for key in ("template", "answer"):
        text = getattr(spec, key)
        try:
            check_template(text or "")
        except ValueError as error:
            raise UserError(f"{spec.where(key)}: malformed format string: {error}") from error
    examples = {
        split: [
            _make_example(spec, kind, choices, found, index, split)
            for index in range(len(found.rows))
        ]
        for split, found in records.items()
    }
    choices = max((e.choices for found in examples.values() for e in found), key=len)
    check_metrics(metrics, kind, len(choices), spec.where("metrics"))
    splits = _split(
        examples,
        share=spec.selection or SELECTION_SHARE,
        limits={
            "train": _smaller(train_limit, spec.train_limit),
            "selection": _smaller(eval_limit, spec.eval_limit),
            "validation": _smaller(eval_limit, spec.eval_limit),
        },
        name=name,
        seed=seed,
    )
    return Task(name, kind, choices, metrics, spec.gamma, splits, spec.max_new_tokens)


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
        raise UserError(f"{path}: a task is a folder or a YAML file, not a single data file")
    siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    raise UserError(
        f"no task {str(source)!r}{nearest(path.name, siblings)} "
        "(allowed: a folder, a YAML file, 'embedded', 'embedded:<task>')"
    )


def _default_name(spec: TaskSpec) -> str:
    if spec.file is not None and spec.file.name != "task.yaml":
        name = spec.file.stem
    elif isinstance(spec.source, str):
        name = spec.config or re.split(r"[/:]", spec.source.rstrip("/"))[-1]
    else:
        name = spec.folder.resolve().name
    return re.sub(r"[^\w-]+", "_", name) or "task"


def _fixed_choices(spec: TaskSpec, train: Records) -> tuple[str, ...]:
    """Return the choices that the specification or the data set declare for all records."""
    if isinstance(spec.choices, tuple):
        return spec.choices
    if spec.choices is None and spec.label_map is not None:
        texts = tuple(dict.fromkeys(spec.label_map.values()))
        if not all(isinstance(text, str) for text in texts):
            raise UserError(
                f"{spec.where('label_map')}: maps to indices, which need the key 'choices'"
            )
        return tuple(str(text) for text in texts)
    return train.class_names.get(spec.label, ()) if spec.choices is None else ()


def _record_choices(spec: TaskSpec, records: Records, index: int) -> tuple[str, ...]:
    """Return the choices that a record lists for itself; empty if it has none."""
    path = spec.choices if isinstance(spec.choices, str) else "choices"
    try:
        listed = lookup(records.rows[index], path)
    except MissingField as error:
        if spec.choices is None:
            return ()
        raise UserError(f"{records.where(index)}: the choices: {error}") from None
    if not isinstance(listed, list) or not all(isinstance(text, str) for text in listed):
        raise UserError(f"{records.where(index)}: {path!r} must be a list of texts")
    if len(listed) == 1 or len(set(listed)) < len(listed) or not all(t.strip() for t in listed):
        raise UserError(f"{records.where(index)}: {path!r} must be at least two different texts")
    return tuple(listed)


def _infer_kind(spec: TaskSpec, train: Records, has_choices: bool) -> Kind:
    """Choices make a choice task; an answer text or whole numbers only, generation.

    Numbers that are not all whole are a regression's.
    """
    if has_choices:
        return "choice"
    if spec.answer is not None or all(_final(row) is not None for row in train.rows):
        return "generation"
    labels = [_label(spec, train, index) for index in range(len(train.rows))]
    if all(_is_number(label) for label in labels):
        whole = all(float(label) == int(label) for label in labels)
        return "generation" if whole else "regression"
    return "generation"


def _default_metrics(name: str, kind: Kind, train: Records, spec: TaskSpec) -> tuple[str, ...]:
    numeric = (
        kind == "generation"
        and spec.answer is None
        and all(_is_number(row.get(spec.label)) for row in train.rows)
    )
    return ("number_match",) if numeric else default_metrics(name, kind)


def _final(row: Record) -> str | None:
    fields = row.get("fields")
    final = fields.get("final") if isinstance(fields, Mapping) else None
    return final if isinstance(final, str) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _label(spec: TaskSpec, records: Records, index: int) -> Any:
    try:
        return lookup(records.rows[index], spec.label)
    except MissingField as error:
        raise UserError(f"{records.where(index)}: the label: {error}") from None


def _render(spec: TaskSpec, key: str, records: Records, index: int) -> str:
    template = getattr(spec, key)
    try:
        return render(template, records.rows[index])
    except MissingField as error:
        raise UserError(
            f"{records.where(index)}: {error}, which the {key} of {spec.where()} uses"
        ) from None
    except (ValueError, TypeError) as error:
        raise UserError(f"{spec.where(key)}: malformed format string: {error}") from error


def _make_example(
    spec: TaskSpec,
    kind: Kind,
    choices: tuple[str, ...],
    records: Records,
    index: int,
    split: str,
) -> Example:
    prompt = _render(spec, "template", records, index).rstrip()
    name = f"{split}:{index}"
    if kind == "generation":
        answer = _generation_answer(spec, records, index)
        return Example(prompt, answer, answer, name)
    raw = _label(spec, records, index)
    if kind == "regression":
        if not _is_number(raw):
            raise UserError(f"{records.where(index)}: label {raw!r} is not a number")
        return Example(prompt, f"{float(raw):.1f}", float(raw), name)
    choices = choices or _record_choices(spec, records, index)
    if not choices:
        raise UserError(f"{records.where(index)}: the record of a choice task has no choices")
    chosen = _choice_index(spec, choices, raw)
    if chosen is None:
        shown = ", ".join(f"{number}: {choice}" for number, choice in enumerate(choices))
        raise UserError(f"{records.where(index)}: label {raw!r} is outside the choices ({shown})")
    return Example(prompt, choices[chosen], chosen, name, choices)


def _generation_answer(spec: TaskSpec, records: Records, index: int) -> str:
    if spec.answer is not None:
        answer = _render(spec, "answer", records, index)
    else:
        final = _final(records.rows[index])
        raw = _label(spec, records, index) if final is None else final
        answer = str(int(raw)) if _is_number(raw) and float(raw) == int(raw) else str(raw)
    if not answer.strip():
        raise UserError(f"{records.where(index)}: the answer is empty")
    return answer.strip()


def _choice_index(spec: TaskSpec, choices: Sequence[str], raw: Any) -> int | None:
    """Return the index of a label given as a name, an index, or a key of the label map."""
    if spec.label_map is not None:
        if str(raw) not in spec.label_map:
            return None
        raw = spec.label_map[str(raw)]
    if isinstance(raw, str):
        return choices.index(raw) if raw in choices else None
    if isinstance(raw, int | float) and float(raw).is_integer() and 0 <= raw < len(choices):
        return int(raw)
    return None


def _smaller(first: int | None, second: int | None) -> int | None:
    given = [limit for limit in (first, second) if limit is not None]
    return min(given) if given else None


def _split(
    examples: Mapping[str, list[Example]],
    *,
    share: float,
    limits: Mapping[str, int | None],
    name: str,
    seed: int,
) -> dict[str, tuple[Example, ...]]:
    """Set the selection split aside (before the limits, so that it does not depend on them)."""
    splits = dict(examples)
    if "selection" not in splits:
        train = splits["train"]
        if len(train) < 2:
            raise UserError(f"task {name!r}: the train split needs at least two examples")
        count = min(max(1, int(share * len(train))), len(train) - 1)
        chosen = set(random.Random(f"selection/{name}/{seed}").sample(range(len(train)), count))
        splits["selection"] = [train[i] for i in sorted(chosen)]
        splits["train"] = [example for i, example in enumerate(train) if i not in chosen]
    return {
        split: tuple(take(splits[split], limits[split], f"{split}/{name}/{seed}"))
        for split in ("train", "selection", "validation")
    }


def take(examples: Sequence[Example], limit: int | None, seed: str) -> list[Example]:
    """Return at most ``limit`` examples, drawn by the seed, in their own order."""
    if limit is None or limit >= len(examples):
        return list(examples)
    chosen = random.Random(seed).sample(range(len(examples)), limit)
    return [examples[i] for i in sorted(chosen)]
