"""What a kill leaves in a folder is taken away by whoever holds the folder next."""

from __future__ import annotations

from pathlib import Path

import pytest

from peml.adapters.files import new_folder
from prefixnas.base.files import sweep
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


def test_what_is_the_users_stays(tmp_path: Path) -> None:
    for name in (".hidden", "notes.new", ".config.old", ".adapter.12345678.keep", "adapter.old"):
        (tmp_path / name).mkdir()
    (tmp_path / "result.json").write_text("{}")
    before = digest(tmp_path)
    (tmp_path / "result.json.tmp").write_text("{")
    sweep(tmp_path)
    assert digest(tmp_path) == before
