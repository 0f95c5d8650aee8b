from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from peml.tasks.load import load_tasks
from peml.tasks.sources import each_source, read_records
from peml.tasks.spec import TaskSpec
from prefixnas.base.errors import UserError


def test_one_source_may_stand_alone() -> None:
    keys = {"source": "embedded:boolean"}
    for given in ("a", Path("a"), keys):
        assert each_source(given) == [given] == each_source((given,))
    assert each_source(iter(["a", keys])) == ["a", keys]
    assert [task.name for task in load_tasks("embedded:boolean", eval_limit=4)] == ["boolean"]
    for wrong in (3, None, [3], ["a", None], [["a"]]):
        with pytest.raises(UserError, match=r"^tasks: expected a path, a name or the keys"):
            each_source(wrong)


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


def test_hub_dataset(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import datasets

    hub = logging.getLogger("huggingface_hub")
    monkeypatch.setattr(hub, "propagate", True)
    monkeypatch.setattr(hub, "level", logging.WARNING)

    def load_dataset(name: str, config: str | None, *, split: str) -> datasets.Dataset:
        assert (name, config) == ("owner/set", "small")
        logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 8s")
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
    assert not caplog.records
    assert hub.level == logging.WARNING


def test_reading_specifications_needs_no_torch() -> None:
    import subprocess

    code = (
        "import sys, peml.tasks.load; "
        "assert not {'torch', 'transformers', 'datasets'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
