"""A single data file is a task: how it is split, and what its labels are."""

from __future__ import annotations

from pathlib import Path

import pytest

from peml.tasks.load import load_task
from tests.peml.tasks.written import error_of, folder, labelled, spec
from tests.workbench import write_lines


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
        write_lines(
            path, [{"input": f"{i}", "fields": {"final": f"is {i % 2}"}} for i in range(20)]
        )
        assert load_task(path).kind == "generation"
        write_lines(path, [{"input": f"{i}", "team": "a"} for i in range(20)])
        assert "t.jsonl, line 1: no field 'label' (there: input, team)" in error_of(path)

    def test_whole_numbers_and_folders_are_read_as_before(self, tmp_path: Path) -> None:
        path = labelled(tmp_path / "t.jsonl", [0, 1] * 10)
        assert "the labels are whole numbers and there are no choices" in error_of(path)
        plain = [{"input": "x", "label": "a"}, {"input": "x", "label": "b"}] * 9
        task = load_task(folder(tmp_path, plain, plain))
        assert (task.kind, task.notes) == ("generation", ())

    def test_a_task_file_names_one_file(self, tmp_path: Path) -> None:
        write_lines(tmp_path / "t.jsonl", [{"a": f"{i}", "team": "zx"[i % 2]} for i in range(30)])
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
