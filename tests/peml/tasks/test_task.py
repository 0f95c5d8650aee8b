from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from peml.tasks.task import load_task, load_tasks
from prefixnas.base.errors import UserError


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows(count: int, **extra: Any) -> list[dict[str, Any]]:
    return [
        {"input": f"text {i} ", "choices": ["bad", "good"], "label": i % 2, **extra}
        for i in range(count)
    ]


def folder(tmp_path: Path, train: list[dict[str, Any]], validation: list[dict[str, Any]]) -> Path:
    home = tmp_path / "mytask"
    write(home / "train.jsonl", train)
    write(home / "validation.jsonl", validation)
    return home


def spec(home: Path, text: str) -> Path:
    path = home / "task.yaml"
    path.write_text(text)
    return path


def error_of(source: Any, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        load_task(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


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
        "import sys; from peml.tasks.task import load_task;"
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
    write(home / "selection.jsonl", [{"input": "x", "label": 50.5}])
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


class TestErrors:
    def test_label_outside_the_choices(self, tmp_path: Path) -> None:
        bad = rows(4)
        bad[2]["label"] = 2
        message = error_of(folder(tmp_path, bad, rows(2)))
        assert "train.jsonl, line 3: label 2 is outside the choices (0: bad, 1: good)" in message
        bad[2]["label"] = -1
        assert "label -1 is outside" in error_of(folder(tmp_path, bad, rows(2)))

    def test_label_outside_the_label_map(self, tmp_path: Path) -> None:
        home = folder(tmp_path, rows(4), rows(2))
        spec(home, "label_map: {0: bad, 2: good}\n")
        assert "line 2: label 1 is outside the choices" in error_of(home)

    def test_no_choices(self, tmp_path: Path) -> None:
        plain = [{"input": "x", "label": 0}, {"input": "x", "label": 1}]
        home = folder(tmp_path, plain, plain)
        spec(home, "kind: choice\n")
        message = error_of(home)
        assert "task.yaml, line 1, key 'kind': a choice task needs choices" in message
        mixed = rows(3)
        mixed[1]["choices"] = []
        message = error_of(folder(tmp_path / "mixed", mixed, rows(2)))
        assert "train.jsonl, line 2: the record of a choice task has no choices" in message

    def test_template_field_is_missing(self, tmp_path: Path) -> None:
        home = folder(tmp_path, rows(4), rows(2))
        spec(home, "name: t\ntemplate: '{sentence}'\n")
        message = error_of(home)
        assert "no field 'sentence' (there: input, choices, label)" in message
        assert "the template of" in message

    def test_malformed_template(self, tmp_path: Path) -> None:
        home = folder(tmp_path, rows(4), rows(2))
        spec(home, "template: '{input'\n")
        assert "line 1, key 'template': malformed template" in error_of(home)

    def test_label_is_missing(self, tmp_path: Path) -> None:
        bad = rows(3)
        bad[1]["label"] = None
        assert "line 2: the label: no field 'label'" in error_of(folder(tmp_path, bad, rows(2)))

    def test_regression_label_is_no_number(self, tmp_path: Path) -> None:
        home = folder(tmp_path, [{"input": "x", "label": "high"}] * 2, rows(2))
        spec(home, "kind: regression\n")
        assert "label 'high' is not a number" in error_of(home)

    def test_empty_split(self, tmp_path: Path) -> None:
        assert "validation.jsonl: there is no record" in error_of(folder(tmp_path, rows(4), []))

    def test_no_validation(self, tmp_path: Path) -> None:
        write(tmp_path / "t" / "train.jsonl", rows(4))
        assert "no validation split" in error_of(tmp_path / "t")

    def test_missing_task(self, tmp_path: Path) -> None:
        folder(tmp_path, rows(4), rows(4))
        assert "did you mean 'mytask'" in error_of(tmp_path / "mytsk")

    def test_a_file_of_another_kind(self, tmp_path: Path) -> None:
        home = folder(tmp_path, rows(4), rows(4))
        (home / "train.xls").write_text("")
        message = error_of(home / "train.xls")
        assert "a task is a folder, a YAML file or a data file (.jsonl, " in message

    def test_one_file_that_is_too_small_or_says_splits(self, tmp_path: Path) -> None:
        write(tmp_path / "two.jsonl", rows(2))
        assert "the train split needs at least two examples" in error_of(tmp_path / "two.jsonl")
        write(tmp_path / "one.jsonl", rows(9))
        (tmp_path / "one.yaml").write_text("source: one.jsonl\nsplits: {train: training}\n")
        assert "is one file, which is split by a fixed seed" in error_of(tmp_path / "one.yaml")

    def test_labels_that_are_no_choices(self, tmp_path: Path) -> None:
        labels = {"same": ["a"] * 9, "many": [f"l{i}" for i in range(1001)], "gap": ["a", " "] * 5}
        labels["blank"] = ["a", "b", "a "] * 5
        for name, texts in labels.items():
            write(tmp_path / f"{name}.jsonl", [{"input": "x", "label": text} for text in texts])
            (tmp_path / f"{name}.yaml").write_text(f"source: {name}.jsonl\nkind: choice\n")
        assert "every label is 'a', and a choice task needs two" in error_of(tmp_path / "same.yaml")
        assert "1001 different labels are too many" in error_of(tmp_path / "many.yaml")
        assert "gap.jsonl, line 2: the label is empty" in error_of(tmp_path / "gap.yaml")
        said = "blank.jsonl, line 3: the label 'a ' differs from another, 'a', by blanks alone"
        assert said in error_of(tmp_path / "blank.yaml")
        assert said in error_of(tmp_path / "blank.jsonl")

    def test_a_field_that_is_null(self, tmp_path: Path) -> None:
        write(tmp_path / "null.jsonl", [{"input": "x", "label": None}] * 9)
        assert "null.jsonl, line 1: the field 'label' is null" in error_of(tmp_path / "null.jsonl")

    def test_metric_of_another_kind(self, tmp_path: Path) -> None:
        home = folder(tmp_path, rows(4), rows(4))
        spec(home, "metrics: [pearson]\n")
        assert "line 1, key 'metrics': metric 'pearson' is not for choice" in error_of(home)


def labelled(path: Path, labels: list[object]) -> Path:
    write(path, [{"input": f"text {i}", "label": label} for i, label in enumerate(labels)])
    return path


class TestOneFile:
    def test_every_record_is_in_one_split(self, tmp_path: Path) -> None:
        task = load_task(labelled(tmp_path / "tickets.jsonl", ["b", "a", "c", "a"] * 25))
        assert {split: len(found) for split, found in task.splits.items()} == {
            "train": 72,
            "selection": 8,
            "validation": 20,
        }
        ids = [e.id for found in task.splits.values() for e in found]
        assert sorted(ids) == sorted(f"train:{i}" for i in range(100))
        assert (task.name, task.kind, task.choices) == ("tickets", "choice", ("a", "b", "c"))
        assert task.notes == (
            "tickets: one file, split by a fixed seed: train 72, selection 8, validation 20",
            "tickets: its labels repeat, so they are the choices: a, b, c",
        )
        example = task.splits["validation"][0]
        assert task.choices[int(example.label)] == example.answer == "baca"[int(example.id[6:]) % 4]

    def test_the_split_is_always_the_same_and_no_limit_moves_it(self, tmp_path: Path) -> None:
        path = labelled(tmp_path / "t.jsonl", ["a", "b"] * 50)
        first, second = load_task(path), load_task(path, train_limit=10)
        assert first.splits["validation"] == second.splits["validation"]
        assert first.digest() == load_task(path).digest()
        assert load_task(path, seed=1).splits["validation"] != first.splits["validation"]

    @pytest.mark.parametrize(
        ("labels", "kind"),
        [
            (["a", "b"] * 5, "choice"),
            (["a", "b"] * 4 + ["c"], "generation"),  # three labels, fewer than five records each
            ([f"l{i}" for i in range(20)] * 5, "choice"),
            ([f"l{i}" for i in range(21)] * 5, "generation"),
            (["same"] * 20, "generation"),
            ([0.5, 1.5] * 5, "regression"),
        ],
    )
    def test_labels_that_repeat_are_choices(
        self, labels: list[object], kind: str, tmp_path: Path
    ) -> None:
        assert load_task(labelled(tmp_path / "t.jsonl", labels)).kind == kind

    def test_texts_in_fields_are_answers_as_in_a_folder(self, tmp_path: Path) -> None:
        path = tmp_path / "t.jsonl"
        write(path, [{"input": f"{i}", "fields": {"final": f"is {i % 2}"}} for i in range(20)])
        assert load_task(path).kind == "generation"
        write(path, [{"input": f"{i}", "team": "a"} for i in range(20)])
        assert "t.jsonl, line 1: no field 'label' (there: input, team)" in error_of(path)

    def test_whole_numbers_and_folders_are_read_as_before(self, tmp_path: Path) -> None:
        path = labelled(tmp_path / "t.jsonl", [0, 1] * 10)
        assert "the labels are whole numbers and there are no choices" in error_of(path)
        plain = [{"input": "x", "label": "a"}, {"input": "x", "label": "b"}] * 9
        task = load_task(folder(tmp_path, plain, plain))
        assert (task.kind, task.notes) == ("generation", ())

    def test_a_task_file_names_one_file(self, tmp_path: Path) -> None:
        write(tmp_path / "t.jsonl", [{"a": f"{i}", "team": "zx"[i % 2]} for i in range(30)])
        (tmp_path / "odd.yaml").write_text("source: t.jsonl\ntemplate: '{a}?'\nlabel: team\n")
        task = load_task(tmp_path / "odd.yaml")
        assert (task.name, task.choices, task.template) == ("odd", ("x", "z"), "{a}?")
        (tmp_path / "odd.yaml").write_text(
            "source: t.jsonl\ntemplate: '{a}?'\nlabel: team\nkind: generation\n"
        )
        assert load_task(tmp_path / "odd.yaml").kind == "generation"


def test_labels_of_a_folder_are_choices_where_the_task_says_so(tmp_path: Path) -> None:
    plain = [{"input": "x", "label": text} for text in ("b", "a", "1st")]
    home = folder(tmp_path, plain, plain[:1])
    spec(home, "kind: choice\n")
    task = load_task(home)
    assert task.choices == ("1st", "a", "b") and task.notes == ()
    assert [example.answer for example in task.splits["validation"]] == ["b"]


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
