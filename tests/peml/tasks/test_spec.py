from __future__ import annotations

from pathlib import Path

import pytest

from peml.tasks.spec import make_spec, read_spec
from prefixnas.base.errors import UserError


def error_of(tmp_path: Path, text: str) -> str:
    path = tmp_path / "t.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_spec(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_all_keys(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(
        "source: {train: a.csv, validation: [b.csv, c.csv]}\nname: my-task\nconfig: x\n"
        "splits: {train: tr}\ntemplate: '{a}'\nanswer: '{b}'\nlabel: y\nchoices: [a, 1]\n"
        "label_map: {0: a}\nkind: choice\nmetrics: accuracy\ngamma: 1\nselection: 0.2\n"
        "train_limit: 5\neval_limit: 6\nmax_new_tokens: 7\n"
    )
    spec = read_spec(path)
    assert spec.source == {"train": ["a.csv"], "validation": ["b.csv", "c.csv"]}
    assert spec.choices == ("a", "1")
    assert spec.label_map == {"0": "a"}
    assert spec.metrics == ("accuracy",)
    assert (spec.gamma, spec.folder, spec.max_new_tokens) == (1.0, tmp_path, 7)
    assert spec.where("label") == f"{path}, line 7, key 'label'"


def test_unknown_key_names_line_and_nearest(tmp_path: Path) -> None:
    message = error_of(tmp_path, "name: t\ntemplte: x\n")
    assert "line 2: unknown key 'templte': did you mean 'template'" in message


def test_internal_fields_are_no_keys(tmp_path: Path) -> None:
    assert "unknown key 'lines'" in error_of(tmp_path, "lines: {}\n")


def test_syntax_error_names_the_line(tmp_path: Path) -> None:
    message = error_of(tmp_path, "name: t\nchoices: [a, b\nkind: x\n")
    assert "t.yaml: line 3, column 5: not valid YAML" in message


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    message = error_of(tmp_path, "source: data\nname: one\nname: two\n")
    assert "line 3, column 1: not valid YAML: key 'name' occurs twice" in message


@pytest.mark.parametrize("text", ["", "- a\n", "just text\n"])
def test_not_a_mapping(tmp_path: Path, text: str) -> None:
    assert "mapping of keys" in error_of(tmp_path, text)


def test_no_objects_from_yaml(tmp_path: Path) -> None:
    assert "is not allowed" in error_of(tmp_path, "name: !!python/object/apply:os.getcwd []\n")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_spec(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("choices: []", "at least two"),
        ("choices: [a]", "at least two different"),
        ("choices: [a, a]", "at least two different"),
        ("choices: [yes, no]", "must quote yes, no"),
        ("choices: 3", "list of at least two"),
        ("label_map: {0: yes}", "must quote"),
        ("label_map: []", "must map"),
        ("kind: rank", "choice, regression, generation"),
        ("metrics: [1]", "metric's name"),
        ("gamma: 0", "above 0"),
        ("gamma: 1.5", "at most 1"),
        ("gamma: yes", "above 0"),
        ("selection: 1", "between 0 and 1"),
        ("train_limit: 0", "at least 1"),
        ("train_limit: 1.5", "whole number"),
        ("name: a b", "letters"),
        ("template: ''", "must be a text"),
        ("source: {tset: a.csv}", "train, selection, validation, test"),
        ("source: {train: []}", "list of files"),
        ("splits: {dev: x}", "must map"),
    ],
)
def test_values_are_checked(tmp_path: Path, text: str, part: str) -> None:
    message = error_of(tmp_path, f"# first line\n{text}\n")
    key = text.partition(":")[0]
    assert f"line 2, key {key!r}" in message
    assert part in message


def test_mapping_without_a_file() -> None:
    with pytest.raises(UserError, match=r"task 'mine': unknown key 'choicse'.*'choices'"):
        make_spec({"name": "mine", "choicse": []})


def test_choices_and_labels_are_texts_as_written(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(
        "choices: [12:30, 010, 1_000, 2021-03-01, 1.50, 0x10]\n"
        "label_map: {01: 12:30, true: '010', 7: 2, 8: 02}\n"
    )
    spec = read_spec(path)
    assert spec.choices == ("12:30", "010", "1_000", "2021-03-01", "1.50", "0x10")
    assert spec.label_map == {"01": "12:30", "true": "010", "7": 2, "8": "02"}


def test_an_exponent_is_a_number(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text("gamma: 1e-1\nselection: 2e-1\n")
    assert (read_spec(path).gamma, read_spec(path).selection) == (0.1, 0.2)
