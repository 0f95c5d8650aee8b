"""The script that makes the tabular benchmark: shards, resuming, and the table it writes."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from peml.objective.config import LanguageModelConfig
from prefixnas.space.nodes import Choice, Seq
from prefixnas.space.space import SearchSpace
from prefixnas.testing.tabular.table import Table
from tests import ROOT

SCRIPT = ROOT / "scripts" / "make_table.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script with a space of two architectures, two seeds, and two steps of training."""
    spec = importlib.util.spec_from_file_location("make_table", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    space = SearchSpace("two", Seq("linear", Choice("activation", ["tanh", "sigmoid"])))
    config = LanguageModelConfig(
        tasks=["embedded:sentiment"], batch_size=2, prefix_length=2, eval_limit=4, lora_rank=1
    )
    changed = {"SPACE": space, "SEEDS": (0, 1), "STEPS": (1, 2), "SUPERNET_STEPS": 3}
    for name, value in {**changed, "CONFIG": config}.items():
        monkeypatch.setattr(module, name, value)
    return module


def lines(folder: Path) -> list[str]:
    return [line for path in sorted(folder.iterdir()) for line in path.read_text().splitlines()]


def test_table_is_made_in_shards_and_nothing_twice(script: ModuleType, tmp_path: Path) -> None:
    folder, out = tmp_path / "parts", tmp_path / "table.json"
    script.main(["children", str(folder), "--shard", "0/3"])
    assert len(lines(folder)) == 2
    with pytest.raises(SystemExit, match="2 of 4 trainings"):
        script.main(["merge", str(folder), str(out)])
    script.main(["children", str(folder)])
    script.main(["supernet", str(folder), "--training", "one-shot"])
    done = lines(folder)
    assert len(done) == 5
    script.main(["children", str(folder), "--shard", "1/2"])
    script.main(["supernet", str(folder), "--training", "one-shot"])
    assert lines(folder) == done

    script.main(["merge", str(folder), str(out)])
    table = Table.from_json(json.loads(out.read_text()))
    assert list(table.architectures) == list(script.SPACE.enumerate())
    assert (table.seeds, table.steps) == ((0, 1), (1, 2))
    assert [(net.training, net.steps) for net in table.supernets] == [
        ("one-shot", 2),
        ("one-shot", 3),
    ]
    row = next(
        item for item in map(json.loads, done) if (item.get("architecture"), item["seed"]) == (1, 0)
    )
    score = table.score(table.architectures[1], "validation", seed=0, steps=1)
    assert score == -row["steps"]["1"]["validation"]["loss"]


def test_same_seed_gives_the_same_row_whatever_was_trained_before(
    script: ModuleType, tmp_path: Path
) -> None:
    for name, shard in (("one", "3/4"), ("other", "0/1")):
        script.main(["children", str(tmp_path / name), "--shard", shard])
    alone, last = lines(tmp_path / "one")[-1], lines(tmp_path / "other")[-1]
    assert json.loads(alone) == json.loads(last)
