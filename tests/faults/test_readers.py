"""A short form of reading mutated files: a result or one line, whatever is in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.fuzz import attempt, corpus, fuzz
from tests.faults.outcomes import GOOD, Outcome, Place
from tests.faults.readers import CORPUS, Reader, readers

EXAMPLES = 3


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("readers"))


@pytest.fixture(scope="module")
def found(place: Place) -> list[Reader]:
    return readers(place.folder)


def test_whole_files_are_read(found: list[Reader]) -> None:
    assert found
    for reader in found:
        assert attempt(reader, reader.file.read_bytes()).outcome == Outcome.READ, reader.name


def test_mutated_files_give_a_result_or_one_line(found: list[Reader], tmp_path: Path) -> None:
    for reader in found:
        tally = fuzz(reader, EXAMPLES, 0, tmp_path)
        assert set(tally) <= set(GOOD), sorted(tmp_path.iterdir())


def test_what_once_was_a_fault_is_none_any_more(found: list[Reader]) -> None:
    by_folder = {reader.name.replace(" ", "-"): reader for reader in found}
    assert {folder.name for folder in CORPUS.iterdir()} <= set(by_folder)
    for reader in found:
        for file in corpus(reader):
            verdict = attempt(reader, file.read_bytes())
            assert verdict.good, (file, verdict)


@pytest.mark.parametrize(
    "name", ["task.parquet", "task.json", "task.csv", "model config.json", "model tensors"]
)
def test_a_command_says_one_line_that_names_the_file_and_nothing_in_front(
    name: str, place: Place, found: list[Reader]
) -> None:
    (reader,) = [reader for reader in found if reader.name == name]
    whole = reader.file.read_bytes()
    reader.file.write_bytes(whole[: len(whole) * 2 // 3] + b'"')
    of_model = name.startswith("model")
    model = reader.file.parent if of_model else place.folder / "llama"
    tasks = place.folder / "mood" if of_model else reader.file.parent
    argv = ["search", "--model", str(model), "--tasks", str(tasks), "--out", str(place.out)]
    end = place.run("prefixnas", [*argv, "--steps", "2"])
    reader.file.write_bytes(whole)
    assert end.code == 2 and end.refused, end
    assert str(reader.file.parent) in end.said


def test_another_exception_is_a_fault(found: list[Reader], tmp_path: Path) -> None:
    broken = Reader("broken", found[0].file, lambda: [][1])
    assert set(fuzz(broken, 2, 0, tmp_path)) == {Outcome.TRACEBACK}
    assert [path.name for path in tmp_path.iterdir()] == [f"broken 1{found[0].file.suffix}"]
