"""What a finished run came to, read back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prefixnas import SearchResult, UserError
from prefixnas.space.architecture import Architecture

COLUMN = {"scores": {"a": {"accuracy": 0.5}}, "task_scores": {"a": 0.5}, "score": 0.5}


def test_a_result_comes_back_as_it_was_written(tmp_path: Path) -> None:
    data = {"columns": {"untouched": None, "trained child": COLUMN}, "selection": COLUMN}
    (tmp_path / "result.json").write_text(json.dumps(data), encoding="utf-8")
    Architecture({"layer0/act": "tanh"}, "small").save(tmp_path / "architecture.yaml")
    found = SearchResult.read(tmp_path)
    assert found.scores == {"untouched": {}, "trained child": {"a": 0.5}}
    assert found.score == found.selected.score == 0.5
    assert found.architecture["layer0/act"] == "tanh"
    assert found.tested == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "not finished: it has no result.json"),
        ("{", "result.json: not valid JSON"),
        ("[]", "result.json: expected an object"),
        ("{}", "result.json: key 'columns': is missing"),
        ('{"columns": {}}', "result.json: key 'selection': is missing"),
        ('{"columns": {}, "selection": 3}', "result.json: key 'selection"),
        ('{"columns": {}, "selection": {"score": 1}}', "key 'selection.task_scores': is missing"),
    ],
)
def test_a_run_without_a_whole_result_is_named(
    text: str | None, message: str, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / "result.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        SearchResult.read(tmp_path)
