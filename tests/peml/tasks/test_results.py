"""Results beside the records that they are of."""

from __future__ import annotations

from pathlib import Path

import pytest

from peml.tasks.files import Records, read_files
from peml.tasks.results import Results

TEXTS = ["a\rb", "\r", "a\r\nb", "a\nb", 'a "b", c', "", "plain"]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_texts_are_read_again_as_they_were(ending: str, tmp_path: Path) -> None:
    out = tmp_path / f"out.{ending}"
    records = Records([{"text": text} for text in TEXTS], "the records")
    Results(out, records, ["n"]).write({"n": [f"{n}\r" for n in range(len(TEXTS))]})
    assert read_files([out]).rows == [{"text": t, "n": f"{n}\r"} for n, t in enumerate(TEXTS)]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_record_keeps_the_probabilities_of_its_own_choices(ending: str, tmp_path: Path) -> None:
    out = tmp_path / f"out.{ending}"
    found = [{"a": 0.25, "b": 0.75}, None, {"c": 1.0}]
    records = Records([{"input": "x"}] * 3, "the records")
    Results(out, records, ["probabilities"]).write({"probabilities": found})
    assert [row["probabilities"] for row in read_files([out]).rows] == found
