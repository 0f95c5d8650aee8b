"""The files in tables/ can be planned, whatever the data are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from peml.methods.method import METHODS
from peml.tables.file import TableFile, paper_of, read_table
from peml.tables.plan import count, plan_table
from tests import ROOT
from tests.workbench import write_lines

FILES = sorted((ROOT / "tables").glob("*.yaml"))
PLANNED = {
    *("c-poly", "frozen", "full", "hydralora", "hyperformer", "hyperlora-id", "hyperprompt"),
    *("llama-adapter", "lorahub", "loramoe", "mpt", "prefix-memory", "unipelt"),
}
"""Methods that rows may name before they are there."""


def _record(name: str, number: int) -> dict[str, Any]:
    """Return a record of the task's kind: of regression, of generation, or with choices."""
    said = {"input": f"{name} {number}", "choices": []}
    if name == "stsb":
        return {**said, "label": number + 0.5}
    if name == "gsm8k":
        return {**said, "label": number, "fields": {"final": str(number)}}
    return {**said, "choices": ["no", "yes"], "label": number % 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for every task that the files name."""
    folder = tmp_path_factory.mktemp("data")
    named = {name for file in FILES for name in re.findall(r"\$DATA/(\w+)", file.read_text())}
    assert "sst2" in named
    for name in named:
        records = [_record(name, number) for number in range(12)]
        for split in ("train", "validation"):
            write_lines(folder / name / f"{split}.jsonl", records)
    return folder


def without_missing(file: TableFile) -> tuple[TableFile, set[str]]:
    """Leave out the rows whose method is not there; return the methods, too."""
    methods = {label: _method(keys) for label, keys in file.rows.items()}
    missing = {label for label, method in methods.items() if method not in METHODS}
    left_out = {**file.left_out, **dict.fromkeys(missing, "not there")}
    rows = {label: keys for label, keys in file.rows.items() if label not in missing}
    against = [label for label in file.against if label not in missing]
    kept = replace(file, rows=rows, left_out=left_out, against=against)
    return kept, {methods[label] for label in missing}


def _method(keys: Mapping[str, Any] | None) -> str:
    return str((keys or {}).get("method", "lora"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_table_can_be_planned(path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("DATA", str(data))
    monkeypatch.setenv("MODELS", "models")
    file, missing = without_missing(read_table(path))
    assert missing <= PLANNED
    table = plan_table(file, path.name)
    total = count(table)
    assert total["runs"] == len(file.rows) * len(file.seeds)
    assert total["trials"] in (0, len(file.rows) * len(file.rates))
    assert file.title and len(table.columns) >= 1


def test_every_table_and_figure_that_has_rows_is_there() -> None:
    numbers = {int(n) for path in FILES for n in re.findall(r"table(\d+)", path.stem)}
    assert numbers == set(range(1, 19))
    figures = {int(n) for path in FILES for n in re.findall(r"figure(\d)", path.stem)}
    assert figures == set(range(3, 9))


def test_averages_of_the_paper_are_those_of_its_columns_or_named(data: Path) -> None:
    """What does not add up in the paper is known, so that it is no slip of the pen here."""
    odd: dict[str, list[str]] = {}
    for path in FILES:
        paper = paper_of(read_table_anywhere(path, data))
        if len(paper.columns) < 5 or paper.columns[-1] != "average":
            continue
        for label, numbers in paper.rows.items():
            *parts, average = [float(number) for number in numbers if number is not None]
            if abs(sum(parts) / len(parts) - average) > 0.0015:
                odd.setdefault(path.stem, []).append(label)
    assert odd == {
        "table04": ["LoRA", "MoE-LoRA (C-Poly's)", "Poly", "MHR", "C-Poly"],
        "table11": ["PEML-AdaLoRA"],
    }


def read_table_anywhere(path: Path, data: Path) -> TableFile:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATA", str(data))
        patch.setenv("MODELS", "models")
        return read_table(path)
