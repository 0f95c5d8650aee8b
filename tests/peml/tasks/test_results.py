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
