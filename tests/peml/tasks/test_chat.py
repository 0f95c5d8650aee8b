from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from peml.tasks.chat import Turn, conversation_of, plain, question_of
from peml.tasks.files import Records
from peml.tasks.load import load_task
from peml.tasks.questions import questions
from prefixnas.base.errors import UserError
from tests.workbench import write_lines

USER, ANSWER = {"role": "user", "content": "a?"}, {"role": "assistant", "content": " b "}
ASKED = (Turn("user", "a?"),)


def error_of(path: Path, rows: list[Any], **keys: Any) -> str:
    write_lines(path / "t.jsonl", rows)
    with pytest.raises(UserError) as caught:
        load_task({"source": "t.jsonl", **keys}, folder=path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("record", "turns"),
    [
        ({"messages": [USER, ANSWER]}, ASKED),
        ({"messages": [USER, ANSWER, {"role": "user", "content": "thanks"}], "id": 3}, ASKED),
        ({"prompt": "a?", "completion": "b"}, ASKED),
        ({"prompt": [USER], "completion": [ANSWER]}, ASKED),
        ({"instruction": "a?", "output": "b"}, ASKED),
        ({"instruction": "a?", "input": "", "output": "b"}, ASKED),
        ({"instruction": "do", "input": "a", "output": "b"}, (Turn("user", "do\n\na"),)),
    ],
)
def test_shapes_that_need_no_task_file(
    tmp_path: Path, record: dict[str, Any], turns: tuple[Turn, ...]
) -> None:
    task = load_task(write_lines(tmp_path / "t.jsonl", [record] * 4))
    assert (task.kind, task.chat) == ("generation", "auto")
    found = task.splits["validation"][0]
    assert (found.turns, found.answer, found.prompt) == (turns, "b", plain(turns))


def test_columns_of_a_table_are_conversations_too(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("instruction,input,output\nadd,1 2,3\nsay,,4\nsay,,05\n")
    task = load_task(path)
    found = {e.prompt: e.answer for split in task.splits.values() for e in split}
    assert found == {"add\n\n1 2": "3", "say": "05"} or found == {"add\n\n1 2": "3", "say": "4"}
    assert task.metrics == ("exact_match",)


def test_a_record_with_input_and_label_is_no_conversation(tmp_path: Path) -> None:
    row = {"input": "x", "label": "y", "prompt": "p", "completion": "c", "messages": []}
    task = load_task(write_lines(tmp_path / "t.jsonl", [row] * 4))
    assert (task.chat, task.splits["validation"][0].prompt) == (None, "x")


def test_fields_that_a_task_file_names_are_read_instead(tmp_path: Path) -> None:
    write_lines(tmp_path / "t.jsonl", [{"prompt": "p", "completion": "c"}] * 4)
    keys = {"template": "{prompt}!", "label": "completion"}
    task = load_task({"source": "t.jsonl", **keys}, folder=tmp_path)
    assert (task.chat, task.splits["validation"][0].prompt) == (None, "p!")


def test_a_new_record_may_end_with_its_answer_or_with_a_question() -> None:
    for messages in ([USER], [USER, ANSWER]):
        assert question_of({"messages": messages}, "x") == ASKED
    more = [USER, ANSWER, USER]
    assert [turn.role for turn in question_of({"messages": more}, "x")] == [
        *("user", "assistant", "user")
    ]
    assert question_of({"prompt": "a?"}, "x") == ASKED
    assert question_of({"instruction": "a?"}, "x") == ASKED


def test_turns_as_text() -> None:
    turns = conversation_of({"messages": [USER, ANSWER, USER, ANSWER]}, "x")[:-1]
    assert plain(turns) == "User: a?\n\nAssistant:  b \n\nUser: a?\n\nAssistant:"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"messages": [USER, {"role": "asistant", "content": "x"}]},
            "t.jsonl, line 5, turn 2: unknown role 'asistant': did you mean 'assistant'? "
            "(allowed: assistant, system, user)",
        ),
        ({"messages": [{"from": "user"}]}, "line 5, turn 1: must be an object with 'role' and 'co"),
        ({"messages": "a"}, "line 5: 'messages' must be a list of turns"),
        ({"messages": [USER, {**ANSWER, "content": None}]}, "turn 2: 'content' must be a text"),
        ({"messages": [USER]}, "line 5: no turn is the assistant's"),
        ({"messages": [ANSWER]}, "line 5: nothing stands in front of the answer"),
        ({"messages": [USER, {**ANSWER, "content": " "}]}, "line 5: the answer is empty"),
        ({"prompt": "a"}, "line 5: no turn is the assistant's"),
        ({"instruction": None, "output": "b"}, "line 5: no field 'instruction'"),
        ({"text": "a"}, "line 5: is no conversation (there: text; known are the fields"),
    ],
)
def test_what_is_no_conversation_is_named_with_its_line(
    tmp_path: Path, wrong: dict[str, Any], message: str
) -> None:
    assert message in error_of(tmp_path, [{"messages": [USER, ANSWER]}] * 4 + [wrong])


@pytest.mark.parametrize(
    ("row", "missing"), [({"q": "a", "a": "b"}, "input"), ({"input": "a"}, "label")]
)
def test_unknown_shapes_are_told_the_known_ones(
    tmp_path: Path, row: dict[str, Any], missing: str
) -> None:
    message = error_of(tmp_path, [row] * 4)
    assert f"line 1: no field {missing!r} (there: {', '.join(row)})" in message
    for field in ("messages", "prompt", "completion", "instruction", "output", "template"):
        assert repr(field) in message


@pytest.mark.parametrize("key", [{"train_on": "all-assistant"}, {"chat": "off"}])
def test_keys_of_conversations_are_for_conversations(tmp_path: Path, key: dict[str, str]) -> None:
    message = error_of(tmp_path, [{"input": "a", "label": "b"}] * 4, **key)
    assert f"key {next(iter(key))!r}: is for conversations" in message


@pytest.mark.parametrize(
    ("text", "chat"), [("chat: off", "off"), ("chat: auto", "auto"), ("", "auto")]
)
def test_chat_in_a_task_file(tmp_path: Path, text: str, chat: str) -> None:
    write_lines(tmp_path / "t.jsonl", [{"messages": [USER, ANSWER]}] * 4)
    (tmp_path / "t.yaml").write_text(f"source: t.jsonl\n{text}\n")
    assert load_task(tmp_path / "t.yaml").chat == chat
    (tmp_path / "t.yaml").write_text("source: t.jsonl\nchat: always\ntrain_on: last\n")
    with pytest.raises(UserError, match="line 2, key 'chat': must be one of auto, off"):
        load_task(tmp_path / "t.yaml")


def test_the_hash_of_other_tasks_is_as_it_was(tmp_path: Path) -> None:
    """Runs of earlier versions go on: their examples had no turns."""
    import hashlib

    rows = [{"input": f"t {i}", "choices": ["a", "b"], "label": i % 2} for i in range(8)]
    task = load_task(write_lines(tmp_path / "t.jsonl", rows))
    said = hashlib.sha256()
    for split, examples in [*sorted(task.splits.items()), ("shots", ())]:
        for e in examples:
            said.update(repr((split, e.prompt, e.answer, e.label, e.id, e.choices)).encode())
    assert task.digest() == said.hexdigest()


def test_a_record_that_is_no_conversation_is_not_answered(tmp_path: Path) -> None:
    task = load_task(write_lines(tmp_path / "t.jsonl", [{"messages": [USER, ANSWER]}] * 4))
    found = questions(task, Records([json.loads('{"prompt": "a?"}')], "new"))
    assert [example.turns for example in found] == [ASKED]
    with pytest.raises(UserError, match="new, record 1: is no conversation"):
        questions(task, Records([{"text": "a"}], "new"))
