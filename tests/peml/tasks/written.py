"""Small tasks, written to a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from peml.tasks.load import load_task
from prefixnas.base.errors import UserError
from tests.workbench import write_lines


def rows(count: int, **extra: Any) -> list[dict[str, Any]]:
    return [
        {"input": f"text {i} ", "choices": ["bad", "good"], "label": i % 2, **extra}
        for i in range(count)
    ]


def folder(tmp_path: Path, train: list[dict[str, Any]], validation: list[dict[str, Any]]) -> Path:
    home = tmp_path / "mytask"
    write_lines(home / "train.jsonl", train)
    write_lines(home / "validation.jsonl", validation)
    return home


def spec(home: Path, text: str) -> Path:
    path = home / "task.yaml"
    path.write_text(text)
    return path


def error_of(source: Any, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        load_task(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def labelled(path: Path, labels: list[object]) -> Path:
    write_lines(path, [{"input": f"text {i}", "label": label} for i, label in enumerate(labels)])
    return path
