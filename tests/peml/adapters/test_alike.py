"""Tasks are asked as in training: shots, beams and the scale of labels are in the adapter."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import peml
from peml.adapters.evaluate import as_trained, trained_tasks
from peml.adapters.manifest import read_manifest
from peml.adapters.tasks import trained_task
from peml.tasks.load import load_task
from peml.tasks.task import Task
from prefixnas.base.errors import UserError
from tests.workbench import write_lines


def saved(bench: Path, home: Path, *tasks: Path, **options: Any) -> list[Task]:
    """Save an adapter as it starts; return the tasks as it was asked them."""
    config = peml.LanguageModelConfig(
        model=str(bench / "llama"), tasks=[str(task) for task in tasks], **options
    )
    objective = config.build(total_steps=1, seed=0)
    objective.reset(None, seed=0)
    objective.save(home / "adapter")
    return list(objective.tasks)


@pytest.fixture
def asked(bench: Path, tmp_path: Path) -> Task:
    """A task with three shots, whose data lies apart."""
    shutil.copytree(bench / "mood", tmp_path / "mood")
    return saved(bench, tmp_path, tmp_path / "mood", shots=3)[0]


def seen_by(adapter: Path, *tasks: Any, **options: Any) -> list[Task]:
    found: list[Task] = []
    peml.evaluate(
        adapter, list(tasks) or None, seen=lambda task, *rest: found.append(task), **options
    )
    return found


def test_a_task_that_is_named_again_has_the_shots_of_its_training(
    asked: Task, tmp_path: Path
) -> None:
    adapter, folder = tmp_path / "adapter", tmp_path / "mood"
    bare, own = load_task(folder), load_task(folder, shots=1)
    for given in ((), (folder,), ({"source": str(folder), "name": "mood"},), (bare,)):
        (found,) = seen_by(adapter, *given)
        assert found.prompt(bare.splits["validation"][0]) == asked.prompt(
            bare.splits["validation"][0]
        )
    assert [task.shots for task in seen_by(adapter, own)] == [own.shots]
    assert [task.shots for task in seen_by(adapter, folder, shots=0)] == [()]
    assert [len(task.shots) for task in seen_by(adapter, folder, shots=2)] == [2]
    stranger = {"source": str(folder), "name": "stranger"}
    assert [task.shots for task in seen_by(adapter, stranger)] == [()]


def test_beams_are_those_of_the_training(bench: Path, tmp_path: Path) -> None:
    say = tmp_path / "say"
    for split in ("train", "validation"):
        write_lines(say / f"{split}.jsonl", [{"input": "a b", "label": "film"}] * 4)
    (say / "task.yaml").write_text("kind: generation\n")
    saved(bench, tmp_path, say, num_beams=3)
    for given in ((), (say,), (load_task(say),)):
        assert [task.num_beams for task in seen_by(tmp_path / "adapter", *given)] == [3]
    assert [task.num_beams for task in seen_by(tmp_path / "adapter", say, num_beams=2)] == [2]


def test_new_records_are_asked_behind_the_same_shots_whatever_became_of_the_data(
    asked: Task, tmp_path: Path
) -> None:
    record = [{"input": "good film"}]
    before = peml.predict(tmp_path / "adapter", record)
    write_lines(tmp_path / "mood" / "train.jsonl", [{"input": "x", "label": 0}] * 40)
    assert peml.predict(tmp_path / "adapter", record) == before
    shutil.rmtree(tmp_path / "mood")
    assert peml.predict(tmp_path / "adapter", record) == before
    known = trained_task(read_manifest(tmp_path / "adapter"), None, tmp_path)
    assert [(s.prompt, s.answer, s.turns) for s in known.shots] == [
        (s.prompt, s.answer, s.turns) for s in asked.shots
    ]


def test_turns_of_shots_are_kept(bench: Path, tmp_path: Path) -> None:
    rows = [
        {
            "messages": [
                {"role": r, "content": c} for r, c in (("user", f"a {n}"), ("assistant", "b"))
            ]
        }
        for n in range(12)
    ]
    for split in ("train", "validation"):
        write_lines(tmp_path / "talk" / f"{split}.jsonl", rows)
    (task,) = saved(bench, tmp_path, tmp_path / "talk", shots=2)
    known = trained_task(read_manifest(tmp_path / "adapter"), None, tmp_path)
    assert [shot.turns for shot in known.shots] == [shot.turns for shot in task.shots]
    assert all(shot.turns for shot in known.shots)


def change(folder: Path, **more: Any) -> None:
    path = folder / "peml.json"
    data = json.loads(path.read_text())
    data["tasks"] = [{**task, **more} for task in data["tasks"]]
    path.write_text(json.dumps(data))


def test_an_adapter_that_does_not_hold_its_shots_says_so(asked: Task, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    data = json.loads((adapter / "peml.json").read_text())
    del data["tasks"][0]["shown"]
    (adapter / "peml.json").write_text(json.dumps(data))
    told: list[str] = []
    assert [len(task.shots) for task in seen_by(adapter, tmp_path / "mood", warn=told.append)] == [
        0
    ]
    assert told[0] == "mood: is asked without shots: an earlier version did not keep those"
    assert [len(task.shots) for task in seen_by(adapter, warn=told.append)] == [3]
    assert len(trained_task(read_manifest(adapter), None, adapter).shots) == 3


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"shown": 3}, "key 'shown': must be a list of objects"),
        ({"shown": [{"prompt": "a"}]}, "key 'answer' is missing"),
        ({"shown": [{"prompt": "a", "answer": "b", "turns": [["user"]]}]}, "a role and a text"),
        ({"scale": [0.0]}, "key 'scale'"),
        ({"scale": [0.0, 0.0]}, "key 'scale'"),
        ({"scale": [float("nan"), 1.0]}, "key 'scale'"),
    ],
)
def test_what_no_adapter_keeps_is_refused(
    more: dict[str, Any], said: str, asked: Task, tmp_path: Path
) -> None:
    change(tmp_path / "adapter", **more)
    with pytest.raises(UserError, match=said):
        read_manifest(tmp_path / "adapter")


def test_answers_without_a_number_count_as_the_mean_of_the_training(
    bench: Path, tmp_path: Path
) -> None:
    rows = [{"input": "film a", "label": label} for label in [1.5] * 20 + [3.5] * 20]
    for split in ("train", "validation"):
        write_lines(tmp_path / "stars" / f"{split}.jsonl", rows)
    (task,) = saved(bench, tmp_path, tmp_path / "stars", train_limit=5)
    manifest = read_manifest(tmp_path / "adapter")
    (again,) = (as_trained(each, manifest) for each in trained_tasks(manifest))
    assert len(again.splits["train"]) > 5
    assert again.label_scale() == task.label_scale()
