from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import peml
from peml.adapters.evaluate import trained_tasks
from peml.adapters.manifest import read_manifest
from peml.answers.evaluation import Answer, evaluate_tasks
from peml.batches.collate import Collator
from peml.tasks.task import Task
from prefixnas.base.errors import UserError
from tests.peml.adapters.trained import trained
from tests.workbench import write_lines


def mood(bench: Path, name: str = "sst2") -> list[Task]:
    return peml.load_tasks([{"source": str(bench / "mood"), "name": name}])


@pytest.mark.parametrize("kind", ["llama", "t5", "bert"])
@pytest.mark.parametrize("split", ["selection", "validation"])
def test_a_folder_scores_as_what_was_loaded_from_it(
    kind: str, split: str, bench: Path, tmp_path: Path
) -> None:
    _, adapter = trained(kind, tmp_path)
    tasks, adapted = mood(bench), peml.load(adapter)
    collator = Collator(adapted.lm)
    found = evaluate_tasks(adapted.lm, tasks, split, heads=adapted.heads, collator=collator)
    expected = found.scores
    assert peml.evaluate(adapter, tasks, split) == expected
    assert peml.evaluate(adapted, tasks, split) == expected


def test_prompts_that_are_cut_are_told_of(bench: Path, tmp_path: Path) -> None:
    _, adapter = trained("llama", tmp_path)
    told: list[str] = []
    peml.evaluate(adapter, mood(bench), max_length=5, warn=told.append)
    assert "sst2: 6 of 6 prompts" in told[-1]
    with pytest.warns(UserWarning, match="sst2: 6 of 6 prompts"):
        peml.evaluate(adapter, mood(bench), max_length=5)
    told.clear()
    peml.evaluate(adapter, mood(bench), warn=told.append)
    assert not any("prompts" in line for line in told)


@pytest.mark.parametrize("kind", ["llama", "t5", "bert"])
def test_choices_are_known_by_their_texts(kind: str, bench: Path, tmp_path: Path) -> None:
    _, adapter = trained(kind, tmp_path)
    (task,) = mood(bench)
    expected = peml.evaluate(adapter, [task], warn=lambda line: None)
    turned = task.in_order_of(["no", "yes"])
    assert turned != task
    peml.export(adapter, tmp_path / "out", format="peml")
    for folder in (adapter, tmp_path / "out"):
        for given in (task, turned):
            assert peml.evaluate(folder, [given], warn=lambda line: None) == expected
    with pytest.raises(UserError, match=r"'sst2': its choices .* are not those that were trained"):
        rows = {"yes": "good", "no": "bad"}
        renamed = [
            replace(e, choices=tuple(rows[c] for c in e.choices)) for e in task.splits["validation"]
        ]
        splits = dict.fromkeys(task.splits, tuple(renamed))
        peml.evaluate(adapter, [replace(task, choices=("good", "bad"), splits=splits)])


def test_the_same_predictions_everywhere_are_told_of(bench: Path, tmp_path: Path) -> None:
    _, adapter = trained("bert", tmp_path)
    adapted = peml.load(adapter)
    assert adapted.heads is not None
    for layer in adapted.heads.layers.values():
        layer.weight.data.zero_()  # type: ignore[operator,union-attr]
    told: list[str] = []
    scores = peml.evaluate(adapted, mood(bench), warn=told.append)
    shown = f"{scores['sst2']['accuracy']:.3f}"
    assert told == [f"sst2: all 6 predictions are the same; that alone scores accuracy {shown}"]


def test_mistakes_are_named(bench: Path, tmp_path: Path) -> None:
    _, adapter = trained("bert", tmp_path)

    def refused(message: str, tasks: Sequence[Any] | None, split: str = "validation") -> None:
        with pytest.raises(UserError, match=message):
            peml.evaluate(adapter, tasks, split)

    refused("unknown split 'valid': did you mean 'validation'", None, "valid")
    refused("adapter: heads: unknown task 'sst': did you mean 'sst2'", mood(bench, "sst"))
    refused("does not say where its tasks came from", None)
    source = {"source": str(bench / "mood"), "name": "sst2"}
    for second in (*mood(bench), source):
        refused("two tasks are named 'sst2'", [*mood(bench), second])


def test_tasks_are_scored_with_the_shots_and_beams_of_their_training(
    bench: Path, tmp_path: Path
) -> None:
    tasks = [str(bench / "mood"), str(bench / "order")]
    config = peml.LanguageModelConfig(
        model=str(bench / "llama"), tasks=tasks, shots=2, num_beams=3, max_length=64
    )
    objective = config.build(total_steps=1, seed=0)
    objective.reset(None, seed=0)
    objective.save(tmp_path)
    manifest = read_manifest(tmp_path)
    found = trained_tasks(manifest)
    example = objective.tasks[0].splits["validation"][0]
    prompts = [[task.prompt(example) for task in tasks] for tasks in (found, objective.tasks)]
    assert prompts[0] == prompts[1]
    assert [len(task.shots) for task in found] == [2, 2]
    assert [task.num_beams for task in found] == [task.num_beams for task in objective.tasks]
    other = trained_tasks(manifest, shots=0, num_beams=1)
    assert [(task.shots, task.num_beams) for task in other] == [((), 1)] * 2
    with pytest.raises(UserError, match="task 'mood': its 2 shots take 12 tokens"):
        peml.evaluate(tmp_path, max_length=12)


@pytest.mark.parametrize("shots", [0, 1])
def test_answers_are_as_long_as_in_training(shots: int, bench: Path, tmp_path: Path) -> None:
    answers = ["film"] * 11 + ["film " * 9]
    rows = [{"input": f"a b {i}", "label": answer} for i, answer in enumerate(answers)]
    write_lines(tmp_path / "say" / "train.jsonl", rows)
    write_lines(tmp_path / "say" / "validation.jsonl", rows[:2])
    (tmp_path / "say" / "task.yaml").write_text("kind: generation\n")
    config = peml.LanguageModelConfig(
        model=str(bench / "llama"), tasks=[str(tmp_path / "say")], train_limit=2, shots=shots
    )
    objective = config.build(total_steps=1, seed=0)
    objective.reset(None, seed=0)
    objective.save(tmp_path / "adapter")
    (task,) = objective.tasks
    assert objective.collator.longest_answer(task) < 4
    expected, found = list[Answer](), list[Answer]()
    evaluate_tasks(
        objective.lm,
        [task],
        collator=objective.collator,
        seen=lambda task, examples, answers: expected.extend(answers),
    )
    peml.evaluate(
        tmp_path / "adapter",
        seen=lambda task, examples, answers: found.extend(answers),
        warn=lambda line: None,
    )
    assert found == expected
    said = peml.predict(tmp_path / "adapter", rows[:2])
    assert [answer.prediction for answer in said] == [answer.prediction for answer in expected]
