from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest

from peml.tasks.sources import read_files, read_records
from peml.tasks.spec import TaskSpec
from prefixnas.base.errors import UserError


def test_formats_hold_the_same_records(tmp_path: Path) -> None:
    import pandas

    wanted = [{"text": "a, b", "label": 1}, {"text": "NA", "label": 0}]
    frame = pandas.DataFrame(wanted)
    frame.to_csv(tmp_path / "x.csv", index=False)
    frame.to_csv(tmp_path / "x.tsv", index=False, sep="\t")
    frame.to_parquet(tmp_path / "x.parquet")
    frame.to_json(tmp_path / "x.jsonl", orient="records", lines=True)
    frame.to_json(tmp_path / "x.json", orient="records")
    for suffix in ("csv", "tsv", "parquet", "jsonl", "json"):
        assert list(read_files([tmp_path / f"x.{suffix}"]).rows) == wanted, suffix


def test_files_are_joined_in_order(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.jsonl").write_text(f'{{"text": "{name}"}}\n')
    rows = read_files([tmp_path / "b.jsonl", tmp_path / "a.jsonl"]).rows
    assert [row["text"] for row in rows] == ["b", "a"]


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "old"}\n')
    assert read_files([path]).rows[0]["text"] == "old"
    path.write_text('{"text": "fresh"}\n')
    assert read_files([path]).rows[0]["text"] == "fresh"


def test_reading_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    (tmp_path / "a.jsonl").write_text('{"text": "old"}\n')
    read_files([tmp_path / "a.jsonl"])
    assert list(scratch.iterdir()) == []


def test_progress_bars_come_back(tmp_path: Path) -> None:
    import datasets

    (tmp_path / "a.jsonl").write_text('{"text": "old"}\n')
    datasets.enable_progress_bars()
    read_files([tmp_path / "a.jsonl"])
    assert datasets.is_progress_bar_enabled()


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("a.jsonl", '{"x": 1}\n{"x": \n', "line 2: not valid JSON"),
        ("a.jsonl", '{"x": 1}\n3\n', "line 2: must be a JSON object"),
        ("a.xml", "<x/>", "unknown file format '.xml'"),
        ("a.parquet", "no parquet", "a.parquet: "),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: str, part: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError) as caught:
        read_files([tmp_path / name])
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a\n1\n")
    with pytest.raises(UserError, match=r"no file .*trian.csv'.*did you mean 'train.csv'"):
        read_files([tmp_path / "trian.csv"])


def test_folder_with_two_files_for_a_split(tmp_path: Path) -> None:
    for name in ("train.csv", "train.jsonl"):
        (tmp_path / name).write_text("")
    with pytest.raises(UserError, match="more than one file for the split 'train'"):
        read_records(TaskSpec(folder=tmp_path))


def test_folder_with_other_split_names(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"x": 1}\n')
    (tmp_path / "dev.jsonl").write_text('{"x": 2}\n')
    found = read_records(TaskSpec(folder=tmp_path, splits={"validation": "dev"}))
    assert found["validation"].rows[0]["x"] == 2
    with pytest.raises(UserError, match="has no file 'test'"):
        read_records(TaskSpec(folder=tmp_path, splits={"validation": "test"}))


def test_folder_without_data(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds train.jsonl and validation.jsonl"):
        read_records(TaskSpec(folder=tmp_path))


@pytest.mark.parametrize("source", ["./none", "a/b/c", "x.csv"])
def test_missing_local_source(tmp_path: Path, source: str) -> None:
    with pytest.raises(UserError, match="no file or folder"):
        read_records(TaskSpec(source=source, folder=tmp_path))


def test_hub_dataset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets

    def load_dataset(name: str, config: str | None, *, split: str) -> datasets.Dataset:
        assert (name, config) == ("owner/set", "small")
        if split not in ("train", "validation_matched"):
            raise ValueError(f"Unknown split {split}\nsecond line")
        return datasets.Dataset.from_dict(
            {"text": [split], "label": [1]},
            features=datasets.Features(
                text=datasets.Value("string"), label=datasets.ClassLabel(names=["no", "yes"])
            ),
        )

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    spec = TaskSpec(
        source="owner/set",
        config="small",
        folder=tmp_path,
        splits={"validation": "validation_matched"},
    )
    found = read_records(spec)
    assert set(found) == {"train", "validation"}
    assert list(found["validation"].rows) == [{"text": "validation_matched", "label": 1}]
    assert found["train"].class_names == {"label": ("no", "yes")}
    with pytest.raises(UserError, match=r"cannot load split 'validation' .*Unknown") as caught:
        read_records(TaskSpec(source="owner/set", config="small", folder=tmp_path))
    assert "\n" not in str(caught.value)


def test_reading_specifications_needs_no_torch() -> None:
    import subprocess

    code = (
        "import sys, peml.tasks.task; "
        "assert not {'torch', 'transformers', 'datasets'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
