from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from peml.batches.batch import IGNORED
from peml.batches.collate import END_WEIGHT, Collator
from peml.model.model import LanguageModel
from peml.tasks.task import Task
from prefixnas.base.errors import UserError
from tests.peml import tiny, zoo

ROWS = [("a b c", "very good"), ("d", "bad"), ("e f", "bad")]
CHOICE = tiny.task_of("t", ROWS, choices=("bad", "very good"))
TEXT = tiny.task_of("g", [("a b c", "1 2"), ("d", "3")], kind="generation")


def ids(words: str) -> list[int]:
    return [tiny.WORDS.index(word) for word in words.split()]


PAD, END = ids("<pad> </s>")


def test_decoder_rows_end_with_the_answer_less_its_last_token() -> None:
    batch = Collator(tiny.llama()).batch(CHOICE, CHOICE.splits["train"])
    assert batch.inputs["input_ids"].tolist() == [
        ids("a b c very good"),
        [PAD, PAD, PAD, *ids("d bad")],
        [PAD, PAD, *ids("e f bad")],
    ]
    assert batch.inputs["attention_mask"].tolist() == [
        [1, 1, 1, 1, 1],
        [0, 0, 0, 1, 1],
        [0, 0, 1, 1, 1],
    ]
    assert batch.inputs["position_ids"].tolist() == [
        [0, 1, 2, 3, 4],
        [0, 0, 0, 0, 1],
        [0, 0, 0, 1, 2],
    ]
    assert batch.labels.tolist() == [
        [*ids("very good"), END],
        [IGNORED, *ids("bad"), END],
        [IGNORED, *ids("bad"), END],
    ]
    assert batch.weights is not None
    assert batch.weights.tolist() == [[1, 1, END_WEIGHT], [0, 1, END_WEIGHT], [0, 1, END_WEIGHT]]
    assert len(batch) == 3


def test_generated_answers_are_closed() -> None:
    batch = Collator(tiny.llama()).batch(TEXT, TEXT.splits["train"])
    assert batch.labels.tolist() == [[*ids("1 2"), END], [IGNORED, *ids("3"), END]]


def test_choices_are_closed_only_if_one_begins_another() -> None:
    collator = Collator(tiny.llama())
    assert collator.choices(CHOICE.splits["train"][0]) == (
        tuple(ids("bad")),
        tuple(ids("very good")),
    )
    nested = tiny.task_of("n", [("a", "very")], choices=("very", "very good"))
    assert collator.choices(nested.splits["train"][0]) == (
        (*ids("very"), END),
        (*ids("very good"), END),
    )


def test_encoder_decoder_inputs() -> None:
    batch = Collator(tiny.t5()).batch(CHOICE, CHOICE.splits["train"])
    assert batch.inputs["input_ids"].tolist() == [
        ids("a b c"),
        [*ids("d"), PAD, PAD],
        [*ids("e f"), PAD],
    ]
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 0]]
    assert batch.inputs["decoder_input_ids"].tolist() == [
        [0, *ids("very good")],
        [0, *ids("bad"), PAD],
        [0, *ids("bad"), PAD],
    ]
    assert batch.labels.tolist() == [
        [*ids("very good"), END],
        [*ids("bad"), END, IGNORED],
        [*ids("bad"), END, IGNORED],
    ]


def test_encoder_inputs() -> None:
    rating = tiny.task_of("r", [("a b", "2.5"), ("c", "1.0")], kind="regression")
    collator = Collator(tiny.bert())
    batch = collator.batch(CHOICE, CHOICE.splits["train"])
    assert batch.inputs["input_ids"].tolist()[1] == [*ids("d"), PAD, PAD]
    assert batch.labels.tolist() == [1, 0, 0]
    numbers = collator.batch(rating, rating.splits["train"])
    assert numbers.labels.dtype == torch.float32
    assert numbers.labels.tolist() == [2.5, 1.0]


def test_prompt_ids_are_the_same_with_and_without_answer() -> None:
    collator = Collator(tiny.llama())
    batch = collator.batch(TEXT, TEXT.splits["train"])
    prompts = collator.prompts(TEXT, TEXT.splits["train"])
    trained = batch.inputs["input_ids"][0, : -(batch.labels.shape[1] - 1)]
    assert trained.tolist() == prompts["input_ids"][0].tolist()


def long_task(words: int, **options: Any) -> Any:
    rows = [("a " * words + "e f", "very good"), ("d", "bad")]
    return tiny.task_of("long", rows, choices=("bad", "very good"), **options)


def test_long_prompts_lose_their_beginning_and_are_counted() -> None:
    task = long_task(100)
    collator = Collator(tiny.llama(), max_length=10)
    for _ in range(2):
        batch = collator.batch(task, task.splits["train"])
    assert batch.inputs["input_ids"].tolist()[0] == ids("a a a a a e f very good")
    assert collator.truncation.seen == {"long": 2}
    assert collator.truncation.cut == {"long": 1}
    assert collator.truncation.messages() == [
        "long: 1 of 2 prompts were longer than the model's window and lost their beginning"
    ]


def test_the_models_window_is_the_limit() -> None:
    task = long_task(100)
    for lm in (tiny.llama(max_position_embeddings=16), tiny.bert()):
        collator = Collator(lm)
        assert collator.max_length == lm.model.config.max_position_embeddings
        batch = collator.batch(task, task.splits["train"])
        assert batch.inputs["input_ids"].shape[1] <= collator.max_length
        lm.model(**batch.inputs)
        assert collator.truncation.cut["long"] == 1
    untouched = Collator(tiny.t5())
    untouched.batch(task, task.splits["train"])
    assert untouched.max_length is None
    assert untouched.truncation.messages() == []


def test_room_for_the_answer_is_the_tasks() -> None:
    rows = [("a " * 50, "1"), ("b", "1 2 3 4")]
    task = tiny.task_of("g", rows, kind="generation")
    collator = Collator(tiny.llama(), max_length=12)
    # The longest answer takes four tokens and an end token.
    assert collator.longest_answer(task) == 5
    assert len(collator.encode(task, task.splits["train"][0]).prompt) == 12 - 5


def test_an_answer_is_never_cut() -> None:
    short = tiny.task_of("g", [("a " * 50, "1")], kind="generation")
    longer = tiny.task_of("g", [("a " * 50, "1 2 3 4 5")], kind="generation")
    collator = Collator(tiny.llama(), max_length=12)
    assert collator.longest_answer(short) == 2
    encoded = collator.encode(short, longer.splits["validation"][0])
    assert encoded.answer == (*ids("1 2 3 4 5"), END)
    assert len(encoded.prompt) + len(encoded.answer) == 12


def test_no_room_for_a_prompt() -> None:
    task = long_task(5)
    with pytest.raises(UserError, match="task 'long': 2 tokens leave no room"):
        Collator(tiny.llama(), max_length=2).lengths(task)


def test_lengths_count_prompt_and_answer() -> None:
    assert Collator(tiny.llama()).lengths(CHOICE) == [6, 3, 4]
    assert Collator(tiny.bert()).lengths(CHOICE, "validation") == [3, 1, 2]


def test_every_example_is_tokenised_once() -> None:
    lm = tiny.llama()
    calls: list[str] = []
    tokenizer: Any = lm.tokenizer

    class Counting:
        def __call__(self, text: str, **options: Any) -> Any:
            calls.append(text)
            return tokenizer(text, **options)

        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer, name)

    counting: Any = Counting()
    lm.tokenizer = counting
    collator = Collator(lm)
    for _ in range(3):
        collator.batch(CHOICE, CHOICE.splits["train"])
        collator.prompts(CHOICE, CHOICE.splits["train"])
    assert sorted(text for text in calls if text in ("a b c", "d", "e f")) == ["a b c", "d", "e f"]


def test_encoders_cannot_generate() -> None:
    Collator(tiny.llama()).check([TEXT])
    with pytest.raises(UserError, match="'g' is free generation"):
        Collator(tiny.bert()).check([CHOICE, TEXT])


def test_to_moves_all_tensors() -> None:
    batch = Collator(tiny.llama()).batch(CHOICE, CHOICE.splits["train"]).to("meta")
    tensors = [batch.labels, *batch.inputs.values()]
    assert {tensor.device.type for tensor in tensors} == {"meta"}


# --- answers that a model can't tell apart ------------------------------------------------------


def without_end(lm: LanguageModel) -> LanguageModel:
    lm.tokenizer.eos_token = None
    return lm


def choice_task(*choices: str) -> Task:
    return tiny.task_of("t", [("a", choices[0])], choices=choices)


@pytest.mark.parametrize(
    ("choices", "part"),
    [
        (("film", "film "), "can't tell the choices 'film' and 'film ' apart"),
        (("坏", "好"), "has no token for a part of the choice '坏'"),
        (("bad", "very 好"), "has no token for a part of the choice 'very 好'"),
    ],
)
@pytest.mark.parametrize("make", [tiny.llama, tiny.t5])
def test_choices_of_the_same_or_unknown_tokens_are_refused(
    make: Any, choices: tuple[str, ...], part: str
) -> None:
    with pytest.raises(UserError, match=part):
        Collator(make()).check([choice_task(*choices)])
    Collator(tiny.bert()).check([choice_task(*choices)])  # heads tell them apart


def test_nested_choices_need_an_end_token_or_means() -> None:
    task = choice_task("good", "good film", "not good")
    Collator(tiny.llama()).check([task])
    collator = Collator(without_end(tiny.llama()))
    with pytest.raises(UserError, match="'good' is the beginning of 'good film', and the tokeniz"):
        collator.check([task])
    collator.check([task], sums=False)
    collator.check([choice_task("good film", "bad plot")])


@pytest.mark.parametrize("kind", ["generation", "regression"])
def test_written_answers_need_an_end_token(kind: str) -> None:
    task = tiny.task_of("w", [("a", "1")], kind=kind)
    Collator(tiny.llama()).check([task])
    with pytest.raises(UserError, match="has no end token, so the model can't learn where an answ"):
        Collator(without_end(tiny.llama())).check([task])


def test_unknown_tokens_in_written_answers() -> None:
    lm = tiny.llama()
    texts = tiny.task_of("w", [("a", "good"), ("b", "good 好")], kind="generation")
    collator = Collator(lm)
    collator.lengths(texts, "train")
    assert collator.truncation.messages() == [
        "w: 1 of 2 answers hold characters that the model has no token for, so it can't write them"
    ]
    numbers = tiny.task_of("n", [("a", "77.5")], kind="regression")
    with pytest.raises(UserError, match=r"no token for a part of the number '77.5'"):
        collator.lengths(numbers, "train")


def test_positions_that_padding_takes_are_no_room() -> None:
    lm = zoo.language_model("roberta")
    assert lm.model.config.max_position_embeddings == 64
    collator = Collator(lm)
    assert collator.max_length == 63  # padding_idx is 0, so the first token is at 1
    task = tiny.task_of("t", [("a " * 100, "good")], choices=("bad", "good"))
    lm.model(**collator.batch(task, task.splits["train"]).inputs)


SHOWN = replace(CHOICE, shots=CHOICE.splits["train"][1:])
"""The shots are "d bad" and "e f bad"."""


def test_shots_stand_in_front_of_scored_prompts_alone() -> None:
    collator = Collator(tiny.llama())
    (example, *_) = SHOWN.splits["validation"]
    assert collator.prompts(SHOWN, [example])["input_ids"].tolist() == [ids("d bad e f bad a b c")]
    assert collator.batch(SHOWN, [example]).inputs["input_ids"].tolist() == [ids("a b c very good")]


def test_shots_that_leave_no_room_are_refused() -> None:
    collator = Collator(tiny.llama(), max_length=8)  # 3 of them for "very good" and an end token
    with pytest.raises(UserError, match="its 2 shots take 5 tokens, and 5 are there for shots"):
        collator.check([SHOWN])
    collator = Collator(tiny.llama(), max_length=9)
    collator.check([SHOWN])
    prompts = [collator.prompt(SHOWN, example) for example in SHOWN.splits["validation"]]
    assert [list(prompt) for prompt in prompts] == [
        ids("e f bad a b c"),
        ids("d bad e f bad d"),
        ids("bad e f bad e f"),
    ]
    assert collator.truncation.messages() == [
        "t with 2 shots: 2 of 3 prompts were longer than the model's window "
        "and lost their beginning"
    ]


def test_heads_read_no_shots() -> None:
    with pytest.raises(UserError, match=r"task 't'.*'tiny-bert' answer without shots; leave the 2"):
        Collator(tiny.bert()).check([SHOWN])
