from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from peml.answers import beginning as room
from peml.answers.beginning import can_go_on, common_beginning, read_beginning
from peml.answers.choices import choice_scores
from peml.answers.evaluation import answer_examples
from peml.answers.generation import generate_answers
from peml.batches.collate import Collator
from peml.model.model import LanguageModel
from peml.prefix.handle import attach
from peml.prefix.sites import block_shape, find_sites
from tests.peml import tiny, zoo

WORDS = ("a", "b", "c", "d", "film", "plot", "so", "very")
GO_ON = ("llama", "qwen2", "qwen3", "mistral", "phi", "gpt2")
SLIDING = ("sliding", "gemma2")
CHOICES = (("bad", "good"), ("very good", "very bad", "no"), ("bad", "not so good", "very good"))

texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join)
rows_of_ids = st.lists(
    st.lists(st.integers(0, 2), min_size=1, max_size=6).map(tuple), min_size=1, max_size=7
)


@given(rows_of_ids)
def test_no_other_beginning_saves_more(rows: list[tuple[int, ...]]) -> None:
    def saved(beginning: tuple[int, ...]) -> int:
        having = [row for row in rows if row[:-1][: len(beginning)] == beginning]
        return len(beginning) * (len(having) - 1)

    most = max(saved(row[:length]) for row in rows for length in range(len(row)))
    found = common_beginning(rows)
    worth = most > 0 and most >= room.WORTH * sum(map(len, rows))
    assert saved(found) == (most if worth else 0)
    assert worth or found == ()


def with_prefix(lm: LanguageModel, attention: str) -> Any:
    """Attach a random prefix; return the handle."""
    sites = find_sites(lm.model)
    kv_heads, head_dim = block_shape(sites)
    generator = torch.Generator().manual_seed(1)
    blocks = torch.randn(len(sites), 2, kv_heads, 3, head_dim, generator=generator).double()
    handle = attach(lm.model, sites, attention)
    handle.set(blocks)
    return handle


def begun(lm: LanguageModel, task: Any) -> Any:
    """Return what the prompts of a task begin with, as the model has read it."""
    collator = Collator(lm)
    ids = common_beginning([collator.prompt(task, e) for e in task.splits["validation"]])
    return read_beginning(lm, ids)


@pytest.mark.parametrize("attention", [None, "parallel", "concat"])
@pytest.mark.parametrize("kind", GO_ON)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_scores_are_those_of_reading_everything(kind: str, attention: Any, data: Any) -> None:
    lm = zoo.language_model(kind)
    if attention is not None:
        with_prefix(lm, attention)
    first = data.draw(st.lists(st.sampled_from(WORDS), min_size=3, max_size=9).map(" ".join))
    rests = data.draw(st.lists(texts, min_size=2, max_size=4))
    choices = data.draw(st.sampled_from(CHOICES))
    task = tiny.task_of("t", [(f"{first} {r}", choices[0]) for r in rests], choices=choices)
    examples, collator = task.splits["validation"], Collator(lm)
    # Words are tokens here.
    beginning = read_beginning(lm, collator.prompt(task, examples[0])[: len(first.split())])
    whole = choice_scores(collator, task, examples)
    parts = choice_scores(collator, task, examples, beginning=beginning)
    for one, other in zip(whole, parts, strict=True):
        assert one == pytest.approx(other, abs=1e-9)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("attention", [None, "parallel", "concat"])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_texts_are_those_of_reading_everything(kind: str, attention: Any, beams: int) -> None:
    lm = zoo.language_model(kind)
    if attention is not None:
        with_prefix(lm, attention)
    rows = [(f"a b c so very film {rest}", "a b c d") for rest in ("a", "plot d d", "b a", "c")]
    task = replace(tiny.task_of("t", rows, kind="generation"), num_beams=beams)
    examples, collator = task.splits["validation"], Collator(lm)
    beginning = begun(lm, task)
    assert len(beginning.ids) == 6
    found = generate_answers(collator, task, examples, beginning)
    assert found == generate_answers(collator, task, examples)
    assert len(set(found)) > 1


@pytest.mark.parametrize("kind", [*GO_ON, *SLIDING, "t5", "bert"])
def test_attention_that_counts_places_reads_everything(kind: str) -> None:
    assert can_go_on(zoo.language_model(kind)) == (kind in GO_ON)


def test_rotations_that_depend_on_the_whole_length_read_everything() -> None:
    scaling: Any = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    assert not can_go_on(tiny.llama(rope_parameters=scaling))


def tokens_read(lm: LanguageModel) -> list[int]:
    """Return a list that the number of tokens of every forward pass goes to."""
    sizes: list[int] = []

    def note(module: Any, args: Any, kwargs: Any) -> None:
        sizes.append(kwargs["input_ids"].numel())

    lm.model.register_forward_pre_hook(note, with_kwargs=True)
    return sizes


def predictions(*args: Any, **options: Any) -> list[Any]:
    return [answer.prediction for answer in answer_examples(*args, **options)]


@pytest.mark.parametrize("kind", ["llama", "sliding"])
def test_predictions_read_the_beginning_once(kind: str) -> None:
    lm = zoo.language_model(kind)
    rows = [(f"a b c so very film {rest}", "bad") for rest in WORDS]
    # One whose beginning is another, like those that were cut.
    task = tiny.task_of("t", [*rows, ("c so very film d", "bad")], choices=("bad", "good"))
    examples, collator = task.splits["validation"], Collator(lm)
    alone = [predictions(collator, task, [example])[0] for example in examples]
    sizes = tokens_read(lm)
    assert predictions(collator, task, examples, batch_tokens=4) == alone
    assert sum(sizes) == (6 + len(WORDS) + 5 if kind == "llama" else 7 * len(WORDS) + 5)


def test_float32_differs_by_rounding_alone() -> None:
    lm = zoo.language_model("llama")
    lm.model.float()
    rows = [(f"a b c so very film d c b a {rest}", "bad") for rest in ("a", "b d", "c")]
    task = tiny.task_of("t", rows, choices=("bad", "not so good", "yes"))
    examples, collator = task.splits["validation"], Collator(lm)
    whole = choice_scores(collator, task, examples)
    parts = choice_scores(collator, task, examples, beginning=begun(lm, task))
    for one, other in zip(whole, parts, strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-4)
