"""Tasks as they are loaded: splits, choices, metrics, shots."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from peml.tasks.load import load_task, load_tasks
from prefixnas.base.errors import UserError
from tests.peml.tasks.written import error_of, folder, rows, spec
from tests.workbench import write_lines


def test_plain_folder_of_choices(tmp_path: Path) -> None:
    task = load_task(folder(tmp_path, rows(30), rows(5)))
    assert (task.name, task.kind, task.choices) == ("mytask", "choice", ("bad", "good"))
    assert task.metrics == ("accuracy",)
    assert {split: len(found) for split, found in task.splits.items()} == {
        "train": 27,
        "selection": 3,
        "validation": 5,
    }
    second = task.splits["validation"][1]
    assert (second.prompt, second.answer, second.label) == ("text 1", "good", 1)
    assert second.choices == ("bad", "good")


def test_selection_is_carved_out_of_train_by_the_seed(tmp_path: Path) -> None:
    home = folder(tmp_path, rows(40), rows(5))
    first, again, other = load_task(home), load_task(home), load_task(home, seed=1)
    assert first.splits == again.splits
    assert first.splits["selection"] != other.splits["selection"]
    prompts = [e.prompt for split in ("train", "selection") for e in first.splits[split]]
    assert sorted(prompts) == sorted(f"text {i}" for i in range(40))
    ids = [e.id for found in first.splits.values() for e in found]
    assert len(set(ids)) == len(ids)


def test_selection_holds_at_least_one_example(tmp_path: Path) -> None:
    task = load_task(folder(tmp_path, rows(2), rows(1)))
    assert [len(task.splits[s]) for s in ("train", "selection")] == [1, 1]
    assert "at least two" in error_of(folder(tmp_path, rows(1), rows(1)))


def test_limits_keep_the_selection_split_and_the_smaller_wins(tmp_path: Path) -> None:
    home = folder(tmp_path, rows(40), rows(20))
    whole, cut = load_task(home), load_task(home, train_limit=6, eval_limit=3)
    assert [len(cut.splits[s]) for s in ("train", "selection", "validation")] == [6, 3, 3]
    assert set(cut.splits["train"]) < set(whole.splits["train"])
    assert set(cut.splits["selection"]) < set(whole.splits["selection"])
    spec(home, "train_limit: 4\n")
    assert len(load_task(home, train_limit=6).splits["train"]) == 4


def test_same_splits_in_another_process(tmp_path: Path) -> None:
    home = folder(tmp_path, rows(40), rows(20))
    here = str([example.id for example in load_task(home, eval_limit=5).splits["validation"]])
    other = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    code = (
        "import sys; from peml.tasks.load import load_task;"
        "print([e.id for e in load_task(sys.argv[1], eval_limit=5).splits['validation']])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(home)],
        env={**os.environ, "PYTHONHASHSEED": other},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == here


def test_ratings_are_regression(tmp_path: Path) -> None:
    train = [{"input": "x", "choices": [], "label": value} for value in (0.0, 2.5, 5.0)]
    task = load_task(folder(tmp_path, train, train))
    assert (task.kind, task.metrics, task.n_outputs) == ("regression", ("pearson", "spearman"), 1)
    assert [e.answer for e in task.splits["validation"]] == ["0.0", "2.5", "5.0"]
    assert [e.label for e in task.splits["validation"]] == [0.0, 2.5, 5.0]


def test_label_scale_is_of_the_training_split(tmp_path: Path) -> None:
    ratings = [{"input": "x", "label": value} for value in (1.5, 3.5)]
    home = folder(tmp_path, ratings, [{"input": "x", "label": 100.5}])
    write_lines(home / "selection.jsonl", [{"input": "x", "label": 50.5}])
    task = load_task(home)
    assert task.label_scale() == (2.5, 1.0)
    assert len(task.splits["selection"]) == 1


def test_final_numbers_are_generated(tmp_path: Path) -> None:
    train = [
        {"input": "q", "choices": [], "label": 25.0, "fields": {"answer": "so 25", "final": "25"}},
        {"input": "q", "choices": [], "label": 1.5, "fields": {"answer": "is 1.5", "final": "1.5"}},
    ]
    home = folder(tmp_path, train, train)
    task = load_task(home)
    assert (task.kind, task.metrics) == ("generation", ("number_match",))
    assert [e.answer for e in task.splits["validation"]] == ["25", "1.5"]
    spec(home, "answer: '{fields.answer}'\nmetrics: number_match\n")
    assert [e.label for e in load_task(home).splits["validation"]] == ["so 25", "is 1.5"]


def test_text_labels_are_generated(tmp_path: Path) -> None:
    train = [{"input": "q", "label": text} for text in ("one", "two")]
    task = load_task(folder(tmp_path, train, train))
    assert (task.kind, task.metrics) == ("generation", ("exact_match",))


def test_whole_numbers_without_choices_are_ambiguous(tmp_path: Path) -> None:
    train = [{"input": "q", "label": value} for value in (0, 1, 1)]
    home = folder(tmp_path, train, train)
    assert "whole numbers and there are no choices" in error_of(home)
    spec(home, "kind: regression\n")
    assert load_task(home).kind == "regression"
    spec(home, "kind: generation\n")
    generation = load_task(home)
    assert generation.metrics == ("number_match",)
    assert {e.answer for e in generation.splits["validation"]} == {"0", "1"}


def test_records_may_list_their_own_choices(tmp_path: Path) -> None:
    train = rows(4)
    train[1]["choices"] = ["bad", "good", "odd"]
    train[1]["label"] = 2
    task = load_task(folder(tmp_path, train, train))
    assert task.choices == ("bad", "good", "odd")
    assert [e.choices for e in task.splits["validation"]][:2] == [
        ("bad", "good"),
        ("bad", "good", "odd"),
    ]


def test_choices_from_a_field(tmp_path: Path) -> None:
    train = [
        {"input": "q", "label": 1, "fields": {"options": [f"a{i}", f"b{i}"]}} for i in range(3)
    ]
    home = folder(tmp_path, train, train)
    spec(home, "choices: fields.options\n")
    assert [e.answer for e in load_task(home).splits["validation"]] == ["b0", "b1", "b2"]


@pytest.mark.parametrize(
    ("name", "metrics"),
    [
        ("cola", ("matthews",)),
        ("mrpc", ("accuracy", "f1")),
        ("cb", ("accuracy", "macro_f1")),
        ("rte", ("accuracy",)),
    ],
)
def test_customary_metrics_by_name(tmp_path: Path, name: str, metrics: tuple[str, ...]) -> None:
    home = folder(tmp_path, rows(4), rows(4)).rename(tmp_path / name)
    assert load_task(home).metrics == metrics


def test_csv_task_with_template_and_label_map(tmp_path: Path) -> None:
    for split in ("tr", "dev"):
        (tmp_path / f"{split}.csv").write_text("text,stars\nfine,5\nNone,1\nmeh,1\n")
    path = tmp_path / "reviews.yaml"
    path.write_text(
        "source: {train: tr.csv, validation: [dev.csv, tr.csv]}\n"
        "template: 'Review: {text}'\n"
        "label: stars\n"
        "label_map: {1: negative, 5: positive}\n"
        "gamma: 0.5\n"
    )
    task = load_task(path)
    assert (task.name, task.choices, task.gamma) == ("reviews", ("negative", "positive"), 0.5)
    assert len(task.splits["validation"]) == 6
    assert [(e.prompt, e.label) for e in task.splits["validation"]][:2] == [
        ("Review: fine", 1),
        ("Review: None", 0),
    ]


def test_labels_by_name_index_and_mapped_index(tmp_path: Path) -> None:
    home = folder(
        tmp_path,
        [{"input": "x", "label": "good"}, {"input": "x", "label": "bad"}],
        [{"input": "x", "label": "bad"}],
    )
    spec(home, "choices: [bad, good]\n")
    assert load_task(home).splits["validation"][0].label == 0
    spec(home, "choices: [no, maybe]\n".replace("no", "'no'") + "label_map: {bad: 1, good: 0}\n")
    assert load_task(home).splits["validation"][0].answer == "maybe"


def test_parquet_and_json(tmp_path: Path) -> None:
    import pandas

    home = tmp_path / "p"
    home.mkdir()
    pandas.DataFrame({"input": ["a", "b"], "label": [0, 1]}).to_parquet(home / "train.parquet")
    (home / "validation.json").write_text(json.dumps([{"input": "a", "label": 1}]))
    spec(home, "choices: [x, y]\n")
    task = load_task(home)
    assert [e.answer for e in task.splits["validation"]] == ["y"]


def test_embedded_suite() -> None:
    from peml.embedded import suite

    tasks = load_tasks(["embedded"], train_limit=5, eval_limit=4)
    assert [task.name for task in tasks] == list(suite.TASKS)
    assert all(len(task.splits["train"]) == 5 for task in tasks)
    (one,) = load_tasks(["embedded:sentiment"], train_limit=5, eval_limit=4)
    assert one == tasks[suite.TASKS.index("sentiment")]
    assert "sentiment" in error_of("embedded:sentimnet")
    assert "embedded:<task>" in error_of("embedded")


def test_mapping_as_a_task(tmp_path: Path) -> None:
    folder(tmp_path, rows(4), rows(4))
    task = load_task({"name": "other", "source": "mytask"}, folder=tmp_path)
    assert task.name == "other"


def test_two_tasks_of_one_name(tmp_path: Path) -> None:
    home = folder(tmp_path, rows(4), rows(4))
    with pytest.raises(UserError, match="two tasks are named 'mytask'"):
        load_tasks([home, home])
    with pytest.raises(UserError, match="no task given"):
        load_tasks([])


def test_a_digest_is_of_all_that_the_examples_say(tmp_path: Path) -> None:
    home = folder(tmp_path, rows(10), rows(4))
    first = load_task(home)
    assert load_task(home).digest() == first.digest()
    for split, key, value in (
        ("train", "input", "other"),
        ("train", "label", 1),
        ("validation", "choices", ["bad", "fine"]),
    ):
        changed = {"train": rows(10), "validation": rows(4)}
        changed[split][0][key] = value
        if key == "choices":
            changed[split] = [{**row, "choices": value} for row in changed[split]]
            changed["train"] = [{**row, "choices": value} for row in changed["train"]]
        other = load_task(folder(tmp_path, changed["train"], changed["validation"]))
        assert other.digest() != first.digest(), key


def test_shots_are_training_examples_set_aside_by_a_fixed_seed(tmp_path: Path) -> None:
    home = folder(tmp_path, rows(60), rows(5))
    plain, task = load_task(home), load_task(home, shots=4)
    assert (plain.shots, len(task.shots)) == ((), 4)
    assert all(shot.id.startswith("train:") for shot in task.shots)
    assert [*plain.splits["selection"], *plain.splits["validation"]] == [
        *task.splits["selection"],
        *task.splits["validation"],
    ]
    assert {*task.splits["train"], *task.shots} == {*plain.splits["train"]}
    assert len(task.splits["train"]) == len(plain.splits["train"]) - 4
    assert load_task(home, shots=4, train_limit=7, eval_limit=2).shots == task.shots
    assert load_task(home, shots=4, seed=1).shots != task.shots
    assert plain.digest() != task.digest() != load_task(home, shots=3).digest()


def test_a_scored_prompt_stands_behind_the_shots(tmp_path: Path) -> None:
    task = load_task(folder(tmp_path, rows(30), rows(5)), shots=2)
    one, two = task.shots
    wanted = f"{one.prompt} {one.answer}\n\n{two.prompt} {two.answer}\n\ntext 3"
    assert task.prompt(task.splits["validation"][3]) == wanted


def test_shots_and_beams_of_a_task_file_go_before_those_of_the_run(tmp_path: Path) -> None:
    home = folder(tmp_path, rows(30), rows(5))
    assert len(load_task(spec(home, "shots: 3\n"), shots=5).shots) == 3
    assert load_task(spec(home, "shots: 0\n"), shots=5).shots == ()
    writing = "kind: generation\n"
    assert load_task(spec(home, writing), num_beams=4).num_beams == 4
    assert load_task(spec(home, writing + "num_beams: 2\n"), num_beams=4).num_beams == 2
    (home / "task.yaml").unlink()
    assert load_task(home, num_beams=4).num_beams == 1  # choices are not written


def test_shots_and_beams_that_can_not_be(tmp_path: Path) -> None:
    home = folder(tmp_path, rows(10), rows(5))
    assert error_of(home, shots=9) == "task 'mytask': 9 shots leave none of 9 training examples"
    assert "key 'num_beams': is for generation tasks, not for choice tasks" in error_of(
        spec(home, "num_beams: 2\n")
    )
    for text in ("shots: -1", "shots: many", "shots: true"):
        assert "key 'shots': must be a whole number of at least 0" in error_of(spec(home, text))
    assert "key 'num_beams': must be a whole number of at least 1" in error_of(
        spec(home, "num_beams: 0")
    )
