from __future__ import annotations

from pathlib import Path

from peml.adapters.manifest import read_manifest
from peml.adapters.save import save_adapter
from peml.prefix.sites import find_sites
from tests.peml.adapters.trained import trained


def test_saving_again_replaces_the_folder(tmp_path: Path) -> None:
    lm, adapter = trained("llama", tmp_path)
    save_adapter(adapter, lm)
    names = sorted(path.name for path in adapter.iterdir())
    assert names == ["peml.json", "tokenizer.json", "tokenizer_config.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base"]


def test_the_manifest_round_trips(tmp_path: Path) -> None:
    lm, _ = trained("bert", tmp_path)
    manifest = read_manifest(tmp_path)
    assert manifest.base == str((tmp_path / "base").resolve())
    assert (manifest.family, manifest.architecture, manifest.lora) == ("encoder", "bert", "lora")
    assert manifest.sites == find_sites(lm.model)
    assert manifest.prefix_length == 3
    assert manifest.heads == {
        "hidden_size": 32,
        "outputs": {"sst2": 2, "stsb": 1},
        "pooling": "cls",
        "choices": {},
    }
    assert manifest.tasks == [{"name": "sst2", "choices": ["yes", "no"]}]
