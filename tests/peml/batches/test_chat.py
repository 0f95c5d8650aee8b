from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from peml.adapters.adapted import Adapted
from peml.adapters.manifest import Manifest
from peml.answers.beginning import common_beginning
from peml.answers.evaluation import answer_examples
from peml.answers.loss import answer_loss
from peml.answers.writing import Sampling, write_after
from peml.batches.chat import ChatFormat, read_as_text
from peml.batches.collate import Collator
from peml.model.model import LanguageModel
from peml.tasks.chat import Turn
from peml.tasks.examples import Example
from peml.tasks.files import Records
from peml.tasks.load import load_task
from peml.tasks.questions import questions
from peml.tasks.task import Task
from prefixnas.base.errors import UserError
from tests.peml import chats, tiny


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return load_task(chats.write(tmp_path / "talks.jsonl"))


def applied(lm: LanguageModel, turns: Sequence[Turn], ask: bool = True) -> tuple[int, ...]:
    """Return what transformers makes of turns."""
    messages = [turn._asdict() for turn in turns]
    made: Any = lm.tokenizer.apply_chat_template(
        messages, add_generation_prompt=ask, tokenize=True, return_dict=False
    )
    return tuple(made)


def watched(lm: LanguageModel) -> list[list[int]]:
    """Return the rows that the model is going to read from here, without padding."""
    rows: list[list[int]] = []

    def note(module: Any, args: Any, given: dict[str, Any]) -> None:
        mask = given.get("attention_mask")
        for place, ids in enumerate(given["input_ids"]):
            rows.append(ids if mask is None else ids[mask[place][-len(ids) :].bool()])
        rows[:] = [list(map(int, row)) for row in rows]

    lm.model.register_forward_pre_hook(note, with_kwargs=True)
    return rows


def test_all_that_is_read_is_what_the_chat_template_makes(task: Task) -> None:
    lm = chats.llama()
    collator, examples = Collator(lm), task.splits["train"]
    wanted = [applied(lm, example.turns) for example in examples]
    start = lm.tokenizer.bos_token_id
    assert all(ids[0] == start and ids.count(start) == 1 for ids in wanted)
    assert [collator.encode(task, e).prompt for e in examples] == wanted
    assert [collator.prompt(task, e) for e in examples] == wanted
    rows = watched(lm)
    answer_loss(lm, collator.batch(task, examples))
    whole = [ids + collator.encode(task, e).answer for ids, e in zip(wanted, examples, strict=True)]
    assert rows == [list(ids[:-1]) for ids in whole]
    rows.clear()
    write_after(collator, [e.turns for e in examples], Sampling(max_new_tokens=1))
    assert rows[: len(wanted)] == [list(ids) for ids in wanted]
    asked = Records([{"messages": chats.record(n)["messages"][:-1]} for n in range(3)], "new")
    new = questions(task, asked)
    assert [collator.prompt(task, e) for e in new] == [applied(lm, e.turns) for e in new]


def test_an_answer_ends_as_the_template_ends_a_turn(task: Task) -> None:
    lm = chats.llama()
    collator, end = Collator(lm), lm.tokenizer.convert_tokens_to_ids("<end>")
    for example in task.splits["train"]:
        ids = collator.encode(task, example)
        whole = applied(lm, [*example.turns, Turn("assistant", example.answer)], ask=False)
        assert ids.prompt + ids.answer == whole
        assert ids.answer[-1] == end
    assert set(collator.ends(task)) == {end, lm.tokenizer.eos_token_id}


def test_what_is_written_stops_at_the_end_of_the_turn(task: Task) -> None:
    lm = chats.llama()
    says = iter(["yes", "<end>", *["no"] * 99])

    def speak(module: Any, args: Any, outputs: Any) -> Any:
        outputs.logits = torch.zeros_like(outputs.logits)
        outputs.logits[:, -1, lm.tokenizer.convert_tokens_to_ids(next(says))] = 1.0
        return outputs

    lm.model.register_forward_hook(speak)
    example = task.splits["train"][0]
    [answer] = answer_examples(Collator(lm), replace(task, max_new_tokens=5), [example])
    assert answer.prediction == "yes"
    says = iter(["yes", "<end>", *["no"] * 99])
    sampling = Sampling(max_new_tokens=5)
    assert write_after(Collator(lm), [example.turns], sampling) == ["yes"]


def test_a_common_beginning_of_conversations_is_read_once(task: Task) -> None:
    lm = chats.llama()
    collator, examples = Collator(lm), task.splits["train"]
    beginning = common_beginning([collator.prompt(task, example) for example in examples])
    system = applied(lm, examples[0].turns[:1], ask=False)
    assert beginning[: len(system)] == system
    together = answer_examples(collator, task, examples)
    alone = [answer_examples(collator, task, [example])[0] for example in examples]
    assert together == alone


def test_off_reads_text_and_so_does_a_model_without_a_template(tmp_path: Path) -> None:
    path = chats.write(tmp_path / "talks.jsonl")
    off, on = load_task(path, chat="off"), load_task(path)
    example = on.splits["train"][0]
    lm = chats.llama()
    as_text = Collator(lm).text.prompt(example.prompt, 999)[0]
    assert Collator(lm).prompt(off, example) == as_text
    assert Collator(lm).ends(off) == (lm.tokenizer.eos_token_id,)
    bare = tiny.llama()
    assert Collator(bare).chat is None
    assert Collator(bare).prompt(on, example) == Collator(bare).text.prompt(example.prompt, 999)[0]


def test_shots_are_turns_behind_the_systems(tmp_path: Path) -> None:
    task = load_task(chats.write(tmp_path / "talks.jsonl"), shots=1)
    lm = chats.llama()
    example, (shot,) = task.splits["validation"][0], task.shots
    wanted = [
        *example.turns[:1],
        *shot.turns[1:],
        Turn("assistant", shot.answer),
        *example.turns[1:],
    ]
    assert Collator(lm).prompt(task, example) == applied(lm, wanted)
    assert Collator(lm).encode(task, example).prompt == applied(lm, example.turns)


def test_a_long_conversation_keeps_its_end_and_the_start_token(task: Task) -> None:
    lm = chats.llama()
    chat = Collator(lm).chat
    assert chat is not None
    turns = task.splits["train"][0].turns
    ids, cut = chat.prompt(turns, 8)
    assert cut
    assert ids == (lm.tokenizer.bos_token_id, *applied(lm, turns)[-7:])


@pytest.mark.parametrize(
    "template",
    ["{{ ''.__class__.__mro__[1].__subclasses__() }}", "{% include '/etc/passwd' %}", "{{ x.y }}"],
)
def test_a_template_reaches_no_code_and_no_file(template: str) -> None:
    lm = chats.llama()
    lm.tokenizer.chat_template = template
    with pytest.raises(UserError, match=r"the chat template of .* does not take turns") as refused:
        ChatFormat(lm, ())
    assert "\n" not in str(refused.value)


def test_a_template_that_refuses_is_told_of() -> None:
    lm = chats.llama()
    chat = ChatFormat(lm, ())
    with pytest.raises(
        UserError, match=r"tiny-chat.*does not take turns of user, system: the syst"
    ):
        chat.prompt([Turn("user", "a"), Turn("system", "b")], 99)


@pytest.mark.parametrize(
    ("template", "answer"),
    [
        # Blanks in front of an answer are the template's; thoughts are not.
        ("{% for m in messages %}{{ m.role }} : {{ m.content }} </s>{% endfor %}", "yes </s>"),
        (
            "{% for m in messages %}<turn> {{ m.role }} "
            "{% if m.role == 'assistant' %}( ){% endif %}{{ m.content }} <end> . {% endfor %}"
            "{% if add_generation_prompt %}<turn> assistant {% endif %}",
            "yes <end>",
        ),
        # No special token ends a turn: the tokenizer's own end does.
        ("{% for m in messages %}{{ m.role }} {{ m.content }} . {% endfor %}", "yes </s>"),
    ],
)
def test_ends_of_other_templates(template: str, answer: str) -> None:
    lm = chats.llama()
    lm.tokenizer.chat_template = template
    ids = ChatFormat(lm, ()).answer([Turn("user", "a")], "yes")
    wanted = lm.tokenizer.convert_tokens_to_ids(answer.split())
    assert list(ids)[-len(wanted) :] == wanted


def test_an_adapter_of_conversations_is_asked_by_turns() -> None:
    lm = chats.llama()
    manifest = Manifest(None, "decoder", "llama", tasks=[{"name": "t", "chat": "auto"}])
    adapted = Adapted(lm, None, None, manifest, Path())
    rows = watched(lm)

    def first(prompt: Any, **options: Any) -> list[int]:
        rows.clear()
        adapted.generate_all([prompt], max_new_tokens=1, **options)
        return rows[0]

    assert first("a b") == list(applied(lm, [Turn("user", "a b")]))
    assert first([chats.turn("user", "a b")]) == first("a b")
    assert first("a b", chat="off") == list(Collator(lm).text.prompt("a b", 99)[0])
    assert first([chats.turn("user", "a b")], chat="off") == first("a b", chat="off")
    plain = Adapted(lm, None, None, Manifest(None, "decoder", "llama"), Path())
    rows.clear()
    plain.generate("a b", max_new_tokens=1)
    assert rows[0] == first("a b", chat="off")
    with pytest.raises(UserError, match="the prompt, turn 1: unknown role 'me'"):
        adapted.generate([chats.turn("me", "a")])


def test_earlier_answers_are_examples_of_their_own(tmp_path: Path) -> None:
    chats.write(tmp_path / "talks.jsonl")
    last = load_task({"source": "talks.jsonl"}, folder=tmp_path)
    every = load_task({"source": "talks.jsonl", "train_on": "all-assistant"}, folder=tmp_path)
    assert every.splits["validation"] == last.splits["validation"]
    assert every.splits["selection"] == last.splits["selection"]
    found: list[Example] = []
    for example in last.splits["train"]:
        first = (example.turns[:2], example.turns[2].content)
        assert first[1] == "yes"
        found.append(example)
    assert len(every.splits["train"]) == 2 * len(found)
    pairs = {(e.turns, e.answer) for e in every.splits["train"]}
    assert pairs == {(e.turns, e.answer) for e in found} | {(e.turns[:2], "yes") for e in found}


def test_a_model_without_a_template_says_that_it_reads_text(task: Task) -> None:
    off, plain = replace(task, chat="off"), replace(task, chat=None)
    assert not list(read_as_text(chats.llama(), [task]))
    said = list(read_as_text(tiny.llama(), [off, task, plain]))
    assert said == [
        f"talks: its conversations are read as text: {tiny.llama().name!r} has no chat template"
    ]
