"""What is wrong in a specification or in data is one line, with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.peml.tasks.written import error_of, folder, rows, spec
from tests.workbench import write_lines


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

    @pytest.mark.parametrize("text", ["Label it.", "{{ 'text' }}"])
    def test_a_template_without_a_field(self, text: str, tmp_path: Path) -> None:
        home = folder(tmp_path, rows(4), rows(2))
        spec(home, f"name: t\ntemplate: {json.dumps(text)}\n")
        assert "line 2, key 'template': it has no field, so every prompt" in error_of(home)

    def test_label_is_missing(self, tmp_path: Path) -> None:
        bad = rows(3)
        bad[1]["label"] = None
        assert "line 2: the label: no field 'label'" in error_of(folder(tmp_path, bad, rows(2)))

    def test_regression_label_is_no_number(self, tmp_path: Path) -> None:
        home = folder(tmp_path, [{"input": "x", "label": "high"}] * 2, rows(2))
        spec(home, "kind: regression\n")
        assert "label 'high' is not a number" in error_of(home)

    def test_regression_label_that_no_model_holds(self, tmp_path: Path) -> None:
        bad = [{"input": "x", "label": label} for label in (0.5, 1e200, 2e200)]
        assert "line 2: label 1e+200 is beyond ±1e+18" in error_of(folder(tmp_path, bad, bad))

    def test_blanks_around_a_field_s_name_are_seen(self, tmp_path: Path) -> None:
        bad = [{" input": "x", "label ": 1}] * 2
        assert "no field 'input' (there: ' input', 'label ')" in error_of(
            folder(tmp_path, bad, bad)
        )

    def test_empty_split(self, tmp_path: Path) -> None:
        assert "validation.jsonl: there is no record" in error_of(folder(tmp_path, rows(4), []))

    def test_no_validation(self, tmp_path: Path) -> None:
        write_lines(tmp_path / "t" / "train.jsonl", rows(4))
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
        write_lines(tmp_path / "two.jsonl", rows(2))
        assert "the train split needs at least two examples" in error_of(tmp_path / "two.jsonl")
        write_lines(tmp_path / "one.jsonl", rows(9))
        (tmp_path / "one.yaml").write_text("source: one.jsonl\nsplits: {train: training}\n")
        assert "is one file, which is split by a fixed seed" in error_of(tmp_path / "one.yaml")

    def test_labels_that_are_no_choices(self, tmp_path: Path) -> None:
        labels = {"same": ["a"] * 9, "many": [f"l{i}" for i in range(1001)], "gap": ["a", " "] * 5}
        labels["blank"] = ["a", "b", "a "] * 5
        for name, texts in labels.items():
            write_lines(
                tmp_path / f"{name}.jsonl", [{"input": "x", "label": text} for text in texts]
            )
            (tmp_path / f"{name}.yaml").write_text(f"source: {name}.jsonl\nkind: choice\n")
        assert "every label is 'a', and a choice task needs two" in error_of(tmp_path / "same.yaml")
        assert "1001 different labels are too many" in error_of(tmp_path / "many.yaml")
        assert "gap.jsonl, line 2: the label is empty" in error_of(tmp_path / "gap.yaml")
        said = "blank.jsonl, line 3: the label 'a ' differs from another, 'a', by blanks alone"
        assert said in error_of(tmp_path / "blank.yaml")
        assert said in error_of(tmp_path / "blank.jsonl")

    def test_a_field_that_is_null(self, tmp_path: Path) -> None:
        write_lines(tmp_path / "null.jsonl", [{"input": "x", "label": None}] * 9)
        assert "null.jsonl, line 1: the field 'label' is null" in error_of(tmp_path / "null.jsonl")

    def test_metric_of_another_kind(self, tmp_path: Path) -> None:
        home = folder(tmp_path, rows(4), rows(4))
        spec(home, "metrics: [pearson]\n")
        assert "line 1, key 'metrics': metric 'pearson' is not for choice" in error_of(home)
