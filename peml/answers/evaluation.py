"""Scores of a language model on tasks."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from math import exp, inf, isfinite
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import nn

from peml.answers.beginning import Beginning, can_go_on, common_beginning, read_beginning
from peml.answers.choices import Normalisation, choice_scores, stems
from peml.answers.generation import generate_answers
from peml.batches.collate import Collator
from peml.batches.tokens import Ids
from peml.tasks.metrics import constant_note, measure, numbers_in, task_score
from peml.tasks.splits import take
from prefixnas.network.modes import evaluation_mode
from prefixnas.run.evaluation import Evaluation
from prefixnas.run.ranks import ALONE, Ranks

if TYPE_CHECKING:
    from peml.answers.heads import TaskHeads
    from peml.model.model import LanguageModel
    from peml.tasks.examples import Example
    from peml.tasks.task import Task

BATCH_TOKENS = 4096
CPU_TOKENS = 512
"""A forward pass of more tokens than these is slower on a CPU, whose caches they leave."""
Prediction = int | float | str


class Answer(NamedTuple):
    """What a model says to an example.

    Attributes:
        prediction: Index of the choice, number or text; None: a text that holds no number.
        probabilities: Of the example's choices, in their order; they add up to 1. Empty unless the
            task is a choice task.
    """

    prediction: Prediction | None
    probabilities: Sequence[float] = ()


Seen = Callable[["Task", Sequence["Example"], Sequence[Answer]], object]
"""What is called with the answers to a task's examples."""

_log = logging.getLogger(__name__)


def evaluate_tasks(
    lm: LanguageModel,
    tasks: Iterable[Task],
    split: str = "validation",
    *,
    limit: int | None = None,
    heads: TaskHeads | None = None,
    collator: Collator | None = None,
    batch_tokens: int | None = None,
    normalisation: Normalisation = "sum",
    ranks: Ranks = ALONE,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    warn: Callable[[str], object] = lambda message: None,
    seen: Seen = lambda task, examples, answers: None,
) -> Evaluation:
    """Compute every task's metrics on a split, and how far their means hang on single examples.

    Args:
        lm: The language model, with whatever is attached to it; in eval mode meanwhile.
        tasks: What to evaluate on.
        split: ``train``, ``selection`` or ``validation``.
        limit: At most so many examples a task: always the same ones, drawn by the task's name.
        heads: The task heads of an encoder-only model.
        collator: Reused between calls, it spares tokenising again.
        batch_tokens: Batches hold about so many tokens, padding included; None: as many as the
            device is fastest with.
        normalisation: Choices are scored by the ``sum`` or the ``mean`` of their tokens'
            log-probabilities.
        ranks: Several processes share the batches; all of them must call this, and get the same.
        autocast: Entered around the model's forward passes.
        warn: Called with a line for each task whose predictions are all the same.
        seen: Called with each task's examples and the answers, as the model gave them.

    Raises:
        UserError: Free generation asked of an encoder-only model.
    """
    collator = collator or Collator(lm)
    scores: dict[str, dict[str, float]] = {}
    errors: dict[str, float] = {}
    influences: dict[str, Sequence[float]] = {}
    for task in tasks:
        examples = take(task.splits[split], limit, f"evaluate/{task.name}/{split}")
        answers = answer_examples(
            collator,
            task,
            examples,
            heads=heads,
            batch_tokens=batch_tokens,
            normalisation=normalisation,
            ranks=ranks,
            autocast=autocast,
        )
        seen(task, examples, answers)
        answers = _with_numbers(task, answers)
        predictions = _predictions(task, examples, answers)
        references = [task.target(example, example.label) for example in examples]
        found = measure(task.metrics, predictions, references)
        scores[task.name] = found.values
        if found.standard_error is not None:
            errors[task.name], influences[task.name] = found.standard_error, found.influences
        if note := constant_note(predictions, scores[task.name]):
            warn(f"{task.name}: {note}")
    means = {name: task_score(values) for name, values in scores.items()}
    return Evaluation(scores, means, errors, influences)


def answer_examples(
    collator: Collator,
    task: Task,
    examples: Sequence[Example],
    *,
    heads: TaskHeads | None = None,
    batch_tokens: int | None = None,
    normalisation: Normalisation = "sum",
    ranks: Ranks = ALONE,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    progress: Callable[[int], object] = lambda count: None,
) -> list[Answer]:
    """Answer examples of a task, in the examples' order.

    Args:
        collator: Tokenises for the language model ``collator.lm``.
        task: Whose examples they are.
        examples: What to answer.
        heads: The task heads of an encoder-only model.
        batch_tokens: As for `evaluate_tasks`.
        normalisation: As for `evaluate_tasks`.
        ranks: As for `evaluate_tasks`.
        autocast: As for `evaluate_tasks`.
        progress: Called after each batch with how many examples were in it.

    Raises:
        UserError: Free generation asked of an encoder-only model.
        ValueError: An encoder-only model without heads.
    """
    collator.check([task], sums=normalisation == "sum")
    found: dict[int, Answer] = {}
    modules: list[nn.Module] = [collator.lm.model, *([heads] if heads is not None else [])]
    with evaluation_mode(*modules), autocast(), collator.lm.on(task.name):
        tokens = batch_tokens or _fastest(collator.lm, task)
        batches = list(_batches(collator, task, examples, tokens))
        read = functools.cache(functools.partial(read_beginning, collator.lm))
        for ids, indices in batches[ranks.rank :: ranks.count]:
            batch = [examples[i] for i in indices]
            answers = _answer_batch(collator, task, batch, heads, normalisation, read(ids))
            found.update(zip(indices, answers, strict=True))
            progress(len(batch))
    for part in ranks.gather(list(found.items())):
        found.update({index: Answer(*answer) for index, answer in part})
    return [found[index] for index in range(len(examples))]


def _answer_batch(
    collator: Collator,
    task: Task,
    batch: Sequence[Example],
    heads: TaskHeads | None,
    normalisation: Normalisation,
    beginning: Beginning | None,
) -> list[Answer]:
    if collator.lm.family == "encoder":
        return _by_head(collator, task, batch, heads)
    if task.kind == "choice":
        rows = choice_scores(
            collator, task, batch, normalisation=normalisation, beginning=beginning
        )
        return [_most_likely(row) for row in rows]
    texts = generate_answers(collator, task, batch, beginning)
    if task.kind == "regression":
        firsts = [next(iter(numbers_in(text)), inf) for text in texts]
        return [Answer(number if isfinite(number) else None) for number in firsts]
    return [Answer(text) for text in texts]


def _most_likely(scores: Sequence[float]) -> Answer:
    """Return the choice of the highest score, and the softmax of the scores."""
    best = max(range(len(scores)), key=scores.__getitem__)
    shares = [exp(score - scores[best]) for score in scores]
    return Answer(best, [share / sum(shares) for share in shares])


def _by_head(
    collator: Collator, task: Task, examples: Sequence[Example], heads: TaskHeads | None
) -> list[Answer]:
    if heads is None:
        raise ValueError("an encoder-only model needs task heads")
    model = collator.lm.model
    inputs = {n: tensor.to(model.device) for n, tensor in collator.prompts(task, examples).items()}
    hidden = model(**inputs).last_hidden_state
    outputs = heads(task.name, hidden, inputs["attention_mask"])
    if task.kind == "regression":
        return [Answer(float(value)) for value in outputs.squeeze(-1)]
    # An example may have fewer choices than the head has outputs.
    return [
        _most_likely(row[heads.places(task.name, example.choices)].tolist())
        for row, example in zip(outputs, examples, strict=True)
    ]


def _predictions(
    task: Task, examples: Sequence[Example], answers: Sequence[Answer]
) -> list[Prediction]:
    return [
        task.target(example, answer.prediction)
        for example, answer in zip(examples, answers, strict=True)
        if answer.prediction is not None
    ]


def _with_numbers(task: Task, answers: Sequence[Answer]) -> list[Answer]:
    """Return answers with the training mean in the place of those that hold no number."""
    missing = sum(answer.prediction is None for answer in answers)
    if not missing:
        return list(answers)
    mean, _ = task.label_scale()
    _log.warning(
        "%s: %d of %d answers hold no number and count as the training mean %.2f",
        task.name,
        missing,
        len(answers),
        mean,
    )
    return [Answer(mean) if answer.prediction is None else answer for answer in answers]


def _fastest(lm: LanguageModel, task: Task) -> int:
    """Return how many tokens a batch should hold; where text is written, rows count for more."""
    writes = lm.family != "encoder" and task.kind != "choice"
    return CPU_TOKENS if lm.device.type == "cpu" and not writes else BATCH_TOKENS


def _batches(
    collator: Collator, task: Task, examples: Sequence[Example], batch_tokens: int
) -> Iterator[tuple[Ids, list[int]]]:
    """Yield what prompts begin with, and indices of examples whose prompts do.

    Those of a batch are of like length, longest first, with about ``batch_tokens`` to read.
    """
    prompts = [collator.prompt(task, example) for example in examples]
    beginning = common_beginning(prompts) if can_go_on(collator.lm) else ()
    parts: dict[Ids, list[int]] = {beginning: [], (): []}
    for index, prompt in enumerate(prompts):
        goes_on = prompt[:-1][: len(beginning)] == beginning
        parts[beginning if goes_on else ()].append(index)
    for ids, indices in parts.items():
        sizes = {i: _size(collator, task, examples[i], len(prompts[i]) - len(ids)) for i in indices}
        order = sorted(indices, key=lambda i: (-sizes[i], i))
        while order:
            count = max(1, batch_tokens // max(1, sizes[order[0]]))
            yield ids, order[:count]
            order = order[count:]


def _size(collator: Collator, task: Task, example: Example, prompt: int) -> int:
    """Return how many tokens an example takes, ``prompt`` of them to be read in its prompt."""
    if collator.lm.family != "encoder" and task.kind == "choice":
        read = stems(collator.choices(example))
        return prompt * (1 + len(read)) if len(read) > 1 else prompt + sum(map(len, read))
    if task.kind != "choice" and collator.lm.family == "decoder":
        return (prompt + collator.longest_answer(task)) * task.num_beams
    return prompt
