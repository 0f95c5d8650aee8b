"""The split "test" of a task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from peml.adapters.evaluate import evaluate
from peml.objective.config import LanguageModelConfig
from peml.tasks.load import load_task
from peml.tasks.sources import read_records
from peml.tasks.spec import TaskSpec, make_spec
from peml.tasks.task import Task
from prefixnas.base.errors import UserError
from tests.workbench import write_lines


def rows(count: int, label: str | None = "label") -> list[dict[str, Any]]:
    return [
        {"input": f"t {i}", "choices": ["a", "b"], **({label: i % 2} if label else {})}
        for i in range(count)
    ]


def folder(tmp_path: Path, test: list[dict[str, Any]], name: str = "test") -> Path:
    home = tmp_path / "mine"
    write_lines(home / "train.jsonl", rows(20))
    write_lines(home / "validation.jsonl", rows(5))
    write_lines(home / f"{name}.jsonl", test)
    return home


def test_a_test_file_is_a_split_of_its_own(tmp_path: Path) -> None:
    task = load_task(folder(tmp_path, rows(7)), eval_limit=6)
    assert {split: len(found) for split, found in task.splits.items()} == {
        **{"train": 18, "selection": 2, "validation": 5, "test": 6}
    }
    named = load_task(
        {"source": str(folder(tmp_path, rows(7), "held")), "splits": {"test": "held"}}
    )
    assert len(named.splits["test"]) == 7
    keys = {split: f"mine/{split}.jsonl" for split in ("train", "validation", "test")}
    assert len(load_task({"source": keys, "name": "x"}, folder=tmp_path).splits["test"]) == 7


@pytest.mark.parametrize(
    ("spec", "known", "secret"),
    [
        ("", {"input": "a", "label": "yes"}, {"input": "a", "label": ""}),
        ("choices: [b, c]\n", {"input": "a", "label": 1}, {"input": "a", "label": -1}),
        ('answer: "{target}"\n', {"input": "a", "target": "b"}, {"input": "a"}),
        (
            "",
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
            {"messages": [{"role": "user", "content": "a"}]},
        ),
        ("", {"prompt": "a", "completion": "b"}, {"prompt": "a"}),
    ],
)
def test_a_test_whose_answers_are_kept_secret_is_left_out(
    spec: str, known: dict[str, Any], secret: dict[str, Any], tmp_path: Path
) -> None:
    for split in ("train", "validation"):
        write_lines(tmp_path / "t" / f"{split}.jsonl", [known] * 4)
    (tmp_path / "t" / "task.yaml").write_text(spec or "name: t\n")
    for records, there in (([known] * 3, True), ([secret] * 3, False)):
        write_lines(tmp_path / "t" / "test.jsonl", records)
        task = load_task(tmp_path / "t")
        assert ("test" in task.splits) == there
        assert any("have no labels" in note for note in task.notes) != there


def test_a_test_without_labels_is_left_out_and_that_is_said(tmp_path: Path) -> None:
    task = load_task(folder(tmp_path, rows(7, label=None)))
    assert "test" not in task.splits
    assert task.notes == ("mine: the records of its test split have no labels; it is left out",)
    with pytest.raises(UserError, match=r"test.jsonl, line 2: the label: no field 'label'"):
        load_task(folder(tmp_path, [*rows(1), *rows(1, label=None)]))


def test_a_test_split_of_the_hub_is_read_where_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[tuple[str, str | None]] = []

    def load(source: str, config: str | None, *, split: str, revision: str | None = None) -> Any:
        asked.append((split, revision))
        return datasets.Dataset.from_list(rows(4))

    monkeypatch.setattr(datasets, "load_dataset", load)
    read_records(TaskSpec(source="owner/data"))
    assert asked == [("train", None), ("validation", None)]
    asked.clear()
    spec = make_spec({"source": "owner/data", "splits": {"test": "held"}, "revision": "v2"})
    assert list(read_records(spec)) == ["train", "validation", "test"]
    assert asked == [("train", "v2"), ("validation", "v2"), ("held", "v2")]


def test_evaluation_asks_tasks_that_have_the_split(tmp_path: Path) -> None:
    with_test = load_task(folder(tmp_path, rows(7)))
    without = load_task("embedded:sentiment", train_limit=8, eval_limit=4)
    config = LanguageModelConfig(tasks=[str(tmp_path / "mine"), "embedded:sentiment"], eval_limit=4)
    objective = config.build(total_steps=1, seed=0)
    assert objective.tested
    objective.reset(None, seed=0)
    assert list(objective.evaluate("test").task_scores) == ["mine"]
    objective.save(tmp_path / "adapter")
    said: list[str] = []
    tasks: list[Task] = [with_test, without]
    assert list(evaluate(tmp_path / "adapter", tasks, "test", warn=said.append)) == ["mine"]
    assert any("task 'sentiment' has no test split" in line for line in said)
    with pytest.raises(UserError, match="task 'sentiment' has no test split"):
        evaluate(tmp_path / "adapter", [without], "test")
