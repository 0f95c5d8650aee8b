from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from peml.objective.config import LanguageModelConfig
from peml.tasks.load import load_task
from peml.tasks.preview import report
from peml.tasks.remarks import UNEVEN, remarks
from tests.workbench import write_lines


def rows(prompts: list[str], labels: list[str]) -> list[dict[str, Any]]:
    return [
        {"input": prompt, "choices": ["no", "yes"], "label": label}
        for prompt, label in zip(prompts, labels, strict=True)
    ]


def folder(tmp_path: Path, **splits: list[dict[str, Any]]) -> Path:
    for split, records in splits.items():
        write_lines(tmp_path / "mine" / f"{split}.jsonl", records)
    return tmp_path / "mine"


@pytest.mark.parametrize(("many", "few", "said"), [(UNEVEN, 1, True), (UNEVEN - 1, 1, False)])
def test_choices_of_very_different_frequency(
    tmp_path: Path, many: int, few: int, said: bool
) -> None:
    train = rows([f"t{i}" for i in range(many + few)], ["no"] * many + ["yes"] * few)
    others = rows(["x"], ["no"])
    task = load_task(folder(tmp_path, train=train, selection=others, validation=others))
    wanted = (
        f"mine: 'no' is the answer of {many} of {many + few} training examples, 'yes' of {few}; "
        "accuracy hides that, macro_f1 does not"
    )
    assert list(remarks(task)) == [wanted] * said
    assert any(wanted in line for line in report(task)) == said


def test_prompts_that_two_splits_share(tmp_path: Path) -> None:
    train = rows(["a", "b", "c", "d"], ["no", "yes"] * 2)
    path = folder(
        tmp_path,
        train=train,
        selection=rows(["e"], ["no"]),
        validation=rows(["a", "x", "d"], ["yes"] * 3),
        test=rows(["a", "y"], ["no"] * 2),
    )
    wanted = [
        "mine: 2 of 3 validation prompts are in train as well",
        "mine: 1 of 2 test prompts are in train as well",
    ]
    assert list(remarks(load_task(path))) == wanted
    config = LanguageModelConfig(tasks=[str(path)], gamma=1.0)
    assert config.preview()[1:] == wanted
    assert [line for line in config.build(1, seed=0).warnings() if line in wanted] == wanted
    other = [{**record, "choices": ["yes", "no", "maybe"]} for record in train]
    assert not list(remarks(load_task(folder(tmp_path, validation=other, test=other[:1]))))


@pytest.mark.parametrize(
    ("examples", "options", "said"),
    [
        (19, {}, True),
        (20, {}, False),
        (19, {"gamma": 0.2}, False),
        (40, {"gamma": 0.02}, True),
        (19, {"batch_size": 1}, False),
        (19, {"sampling": "round-robin"}, False),
        (1, {}, False),
    ],
)
def test_batches_of_a_single_example(
    tmp_path: Path, examples: int, options: dict[str, Any], said: bool
) -> None:
    train = rows([f"t{i}" for i in range(examples)], ["no", *["yes"] * (examples - 1)])
    others = rows(["x"], ["no"])
    path = folder(tmp_path, train=train, selection=others, validation=others)
    config = LanguageModelConfig(tasks=[str(path)], **options)
    wanted = f"mine: a step takes 1 of {examples} training examples, by a gamma of {config.gamma}; "
    lines = [line for line in config.preview() if line.startswith(wanted)]
    assert len(lines) == said
    if said:
        assert lines[0] in config.build(1, seed=0).warnings()
        assert lines[0].endswith("up to batch_size (8)")
        own = tmp_path / "own.yaml"
        own.write_text("source: mine\ngamma: 0.5\n")
        assert not any("a step takes" in line for line in
                       dataclasses.replace(config, tasks=[str(own)]).preview())  # fmt: skip


def test_answers_and_prompts_that_are_odd(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "t.jsonl",
        [{"input": f"{n}" * (n > 0), "label": "aAb"[n % 3]} for n in range(30)],
    )
    said = list(remarks(load_task(path)))
    assert "t: the choices 'A' and 'a' differ by case alone" in said
    assert any(line.endswith("prompts hold no text") for line in said)
    write_lines(path, [{"input": f"{n}", "label": "a"} for n in range(10)])
    assert list(remarks(load_task(path))) == ["t: all 7 training examples have the answer 'a'"]
