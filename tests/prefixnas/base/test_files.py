"""Tables are written as they are; what a kill leaves goes when the folder is held next."""

from __future__ import annotations

import csv
import gc
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from peml.adapters.files import new_folder
from prefixnas.base.errors import UserError
from prefixnas.base.files import refuse_used, sweep, write_csv, write_text
from tests.workbench import digest


class Killed(BaseException):
    """Stands for the end of the process: nothing is cleaned up after it."""


STEPS = ("written", "moved away", "moved in")


@pytest.mark.parametrize("step", STEPS)
def test_an_adapter_that_was_being_replaced_is_there_whole(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    (run / "adapter").mkdir(parents=True)
    (run / "adapter" / "peml.json").write_text("old")
    (run / "config.yaml").write_text("")
    before = digest(run)
    monkeypatch.setattr("shutil.rmtree", lambda *given, **more: None)
    rename, left = Path.rename, STEPS.index(step)

    def killing(path: Path, target: Path) -> Path:
        nonlocal left
        if not left:
            raise Killed
        left -= 1
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", killing)
    try:
        with new_folder(run / "adapter", replace=True) as new:
            (new / "peml.json").write_text("new")
    except Killed:
        pass
    monkeypatch.undo()
    assert any(path.name.endswith((".new", ".old")) for path in run.iterdir())
    sweep(run)
    if step == "moved in":
        assert (run / "adapter" / "peml.json").read_text() == "new"
        assert [path.name for path in sorted(run.iterdir())] == ["adapter", "config.yaml"]
    else:
        assert digest(run) == before


@pytest.mark.parametrize("moved", range(5))
def test_a_folder_that_was_being_filled_is_filled_anew(
    moved: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, rename, left = tmp_path / "out", Path.rename, moved
    out.mkdir()

    def killing(path: Path, target: Path) -> Path:
        nonlocal left
        if path.parent.parent == out and not path.name.startswith("."):
            if not left:
                raise Killed
            left -= 1
        return rename(path, target)

    def fill(text: str) -> None:
        with new_folder(out) as new:
            for name in ("peml.json", "lora", "model"):
                (new / name).write_text(text)

    monkeypatch.setattr("shutil.rmtree", lambda *given, **more: None)
    monkeypatch.setattr(Path, "rename", killing)
    with suppress(Killed):
        fill("first")
    monkeypatch.undo()
    assert len([path for path in out.iterdir() if path.name.endswith(".new")]) == 1
    gc.collect()
    fill("second")
    assert {path.name: path.read_text() for path in out.iterdir()} == {
        "peml.json": "second",
        "lora": "second",
        "model": "second",
    }


def test_what_a_kill_left_beside_a_folder_is_taken_away_before_it_is_written(
    tmp_path: Path,
) -> None:
    left = [tmp_path / ".out.01234567.new", tmp_path / ".out.0123abcd.old"]
    other = tmp_path / ".other.01234567.new"
    for folder in (*left, other):
        folder.mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(UserError, match="not empty"), new_folder(tmp_path / "out"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, "out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_what_another_process_is_filling_stays(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError, match="cannot be written: Directory not"), new_folder(out) as new:
        (new / "first").touch()
        with new_folder(out) as other:
            (other / "second").touch()
            assert new.is_dir()
            out.mkdir()
            (out / "mine").touch()
    assert [path.name for path in out.iterdir()] == ["mine"]


def test_two_writers_of_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    path, texts = tmp_path / "status.json", ["a" * 5000, "b" * 90_000]
    path.with_name("status.json.tmp").write_text("what a kill left, longer than nothing")

    def write(text: str) -> None:
        for _ in range(100):
            write_text(path, text)
            assert path.read_text() in texts

    with ThreadPoolExecutor(2) as pool:
        for written in [pool.submit(write, text) for text in texts]:
            written.result()
    assert [each.name for each in tmp_path.iterdir()] == ["status.json"]


def test_what_is_the_users_stays(tmp_path: Path) -> None:
    for name in (".hidden", "notes.new", ".config.old", ".adapter.12345678.keep", "adapter.old"):
        (tmp_path / name).mkdir()
    (tmp_path / "result.json").write_text("{}")
    before = digest(tmp_path)
    (tmp_path / "result.json.tmp").write_text("{")
    sweep(tmp_path)
    assert digest(tmp_path) == before


@pytest.mark.parametrize(
    ("holds", "resume", "expected"),
    [
        (None, False, False),
        (None, True, False),
        ([], True, False),
        ([".lock", "config.yaml.tmp"], True, False),
        (["config.yaml"], True, True),
        (["config.yaml"], False, "holds a run already; add --resume"),
        (["other"], False, "is not empty"),
        (["other"], True, r"no run to resume \(no config.yaml in it\)"),
    ],
)
def test_what_goes_on_begins_where_nothing_was_begun(
    holds: list[str] | None, resume: bool, expected: bool | str, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    if holds is not None:
        folder.mkdir()
        for name in holds:
            (folder / name).touch()
    if isinstance(expected, bool):
        assert refuse_used(folder, "config.yaml", "run", resume=resume) == expected
    else:
        with pytest.raises(UserError, match=expected):
            refuse_used(folder, "config.yaml", "run", resume=resume)


def test_a_table_is_read_again_as_it_was(tmp_path: Path) -> None:
    rows = [{"a": "x\ry", "b": "1"}, {"a": "x\r\ny\n", "b": ""}, {"a": 'x "y", z', "b": "\r"}]
    write_csv(tmp_path / "x.csv", rows)
    with (tmp_path / "x.csv").open(newline="") as file:
        assert [*csv.DictReader(file)] == rows


def test_lines_of_a_table_end_with_a_newline(tmp_path: Path) -> None:
    write_csv(tmp_path / "x.csv", [{"a": 0.5, "b": None}, {"b": "x y", "a": True}])
    assert (tmp_path / "x.csv").read_bytes() == b"a,b\n0.5,\nTrue,x y\n"
