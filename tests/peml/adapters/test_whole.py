"""An adapter that is not whole is never loaded: the file, and the key or tensor, are named."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import peml
from peml.adapters.export import export
from peml.adapters.manifest import Manifest
from prefixnas.base.errors import UserError
from tests.peml.adapters.trained import trained

Tensors = dict[str, torch.Tensor]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An adapter of a llama and one of a bert."""
    return {kind: trained(kind, tmp_path_factory.mktemp(kind))[1] for kind in ("llama", "bert")}


def copy(folder: Path, to: Path, *, hashed: bool = True) -> Path:
    """Copy an adapter; `hashed=False`: as an earlier version wrote it."""
    shutil.copytree(folder, to)
    base = to.parent / "base"
    if not base.is_symlink():  # where the adapter finds it, beside itself
        base.symlink_to(folder.parent / "base")
    if not hashed:
        change(to / "peml.json", lambda data: data.pop("files") and data.update(version=3))
    return to


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))


def refused(folder: Path, said: str) -> None:
    for use in (peml.load, lambda folder: export(folder, folder.parent / "out", "merged")):
        with pytest.raises(UserError, match=said) as error:
            use(folder)
        assert "\n" not in str(error.value)
    assert not (folder.parent / "out").exists()


MANIFESTS: list[tuple[dict[str, Any], str]] = [
    ({"lora": "x"}, "peml.json: key 'lora': unknown kind of LoRA 'x'"),
    ({"lora": "dora_"}, "did you mean 'dora'"),
    ({"lora": 3}, "key 'lora': must be a text"),
    ({"family": "decodr"}, "key 'family': unknown value 'decodr': did you mean 'decoder'"),
    ({"attention": "x"}, "key 'attention': unknown kind of prefix attention"),
    ({"prefix_length": -1}, "key 'prefix_length': must be at least 0"),
    ({"prefix_length": 10**9}, "key 'prefix_length': must be .* at most 1000000"),
    ({"prefix_length": 2.5}, "key 'prefix_length': must be a whole number"),
    ({"prefix_length": 9}, r"prefix.safetensors: the tensor 'blocks' has the shape .*expected"),
    ({"sites": []}, "keys 'sites' and 'prefix_length'"),
    ({"sites": None}, "key 'sites': must be a list of objects"),
    ({"sites": [{"path": "a"}]}, "key 'sites': key 'kind' is missing"),
    ({"sites": [{"path": "a", "kind": "b"}]}, "key 'sites': key 'kind': unknown value 'b'"),
    ({"sitez": []}, "unknown key 'sitez': did you mean 'sites'"),
    ({"base": 3}, "key 'base': must be a text"),
    ({"tasks": [{"choices": "yes no", "max_length": 0}]}, "key 'tasks': key 'max_length'"),
    ({"tasks": [{"template": "{a"}]}, "key 'tasks': key 'template': malformed"),
    ({"tasks": [{"template": "{a:>99999}"}]}, "key 'template': .*wider than 10,000"),
    ({"tasks": [{"template": "{a}", "kind": "choice"}]}, "key 'longest_answer' is missing"),
    ({"tasks": [{"kind": "chioce"}]}, "key 'kind': unknown value 'chioce': did you mean 'choice'"),
    ({"tasks": [3]}, "key 'tasks': must be a list of objects"),
    ({"examples": [{"prompt": [-1]}]}, "key 'examples': key 'prompt': must be at least 0"),
    ({"heads": {"hidden_size": 3}}, "key 'heads'"),
    ({"version": "x"}, "key 'version': must be a whole number, not 'x'"),
    ({"version": True}, "key 'version': must be a whole number, not True"),
    ({"files": None}, "key 'files': must be an object of hashes"),
    ({"files": {}}, "damaged: not what was saved"),
]


@pytest.mark.parametrize(("given", "said"), MANIFESTS, ids=lambda value: str(value)[:40])
def test_a_manifest_is_checked_key_by_key(
    given: dict[str, Any], said: str, whole: dict[str, Path], tmp_path: Path
) -> None:
    folder = copy(whole["llama"], tmp_path / "adapter")
    change(folder / "peml.json", lambda data: data.update(given))
    refused(folder, said)


@pytest.mark.parametrize("key", ["base", "family", "architecture", "version", "sites", "lora"])
def test_a_manifest_without_a_key_is_another_adapter_or_none(
    key: str, whole: dict[str, Path], tmp_path: Path
) -> None:
    folder = copy(whole["llama"], tmp_path / "adapter")
    change(folder / "peml.json", lambda data: data.pop(key))
    if key == "lora":  # as an adapter of the prefix alone has none
        assert Manifest.read(folder).lora is None
    else:
        refused(folder, f"key[s]? '{key}'")


@given(data=st.dictionaries(st.sampled_from([*Manifest.__annotations__]), JSON))
@settings(
    max_examples=200,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_whatever_a_manifest_says_it_is_read_or_refused_in_one_line(
    data: dict[str, Any], whole: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir(exist_ok=True)
    known = json.loads((whole["llama"] / "peml.json").read_text())
    (folder / "peml.json").write_text(json.dumps({**known, **data}))
    try:
        Manifest.read(folder)
    except UserError as error:
        assert "peml.json" in str(error) and "\n" not in str(error)


def edited(path: Path, edit: Callable[[Tensors], object]) -> None:
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)


def first(tensors: Tensors) -> str:
    return min(tensors)


TENSORS: list[tuple[str, Callable[[Tensors], object], str]] = [
    ("gone", lambda t: t.pop(first(t)), "the tensor '.*' is missing"),
    ("more", lambda t: t.update(other=torch.zeros(1)), "unknown tensor 'other'"),
    ("nan", lambda t: t[first(t)].view(-1)[0].fill_(torch.nan), "no numbers"),
    ("inf", lambda t: t[first(t)].view(-1)[0].fill_(torch.inf), "no numbers"),
    ("wide", lambda t: t.update({first(t): torch.zeros(3, 3)}), "has the shape|size mismatch"),
]


@pytest.mark.parametrize("hashed", [True, False])
@pytest.mark.parametrize("edit", TENSORS, ids=lambda case: case[0])
@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("llama", "lora/adapter_model.safetensors"),
        ("llama", "prefix.safetensors"),
        ("bert", "heads.safetensors"),
    ],
)
def test_tensors_are_those_of_the_manifest(
    kind: str, file: str, edit: Any, hashed: bool, whole: dict[str, Path], tmp_path: Path
) -> None:
    folder = copy(whole[kind], tmp_path / "adapter", hashed=hashed)
    edited(folder / file, edit[1])
    refused(folder, f"{file}: damaged: not what was saved" if hashed else edit[2])


def test_a_flipped_bit_is_found(whole: dict[str, Path], tmp_path: Path) -> None:
    files = ["lora/adapter_model.safetensors", "lora/adapter_config.json", "prefix.safetensors"]
    for file in files:
        folder = copy(whole["llama"], tmp_path / file.replace("/", "-"))
        data = bytearray((folder / file).read_bytes())
        data[-9] ^= 1
        (folder / file).write_bytes(data)
        refused(folder, f"{file}: damaged: not what was saved with the peml.json beside it")
        (folder / file).unlink()
        refused(folder, f"{file} is missing")


def test_an_earlier_adapter_without_hashes_loads(whole: dict[str, Path], tmp_path: Path) -> None:
    folder = copy(whole["llama"], tmp_path / "adapter", hashed=False)
    assert Manifest.read(folder).files is None
    peml.load(folder)


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def test_a_pickled_adapter_is_refused_by_name(whole: dict[str, Path], tmp_path: Path) -> None:
    folder = copy(whole["llama"], tmp_path / "adapter", hashed=False)
    (folder / "lora/adapter_model.safetensors").unlink()
    (folder / "lora/adapter_model.bin").write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    refused(folder, r"adapter_model\.bin: pickled weights are not read")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"peft_type": "PREFIX_TUNING"}, "key 'peft_type': must be 'LORA' for the kind 'lora'"),
        ({"use_dora": True}, "key 'use_dora'"),
        ({"r": 10**9}, "key 'r': must be a whole number from 1"),
        ({"r": "many"}, "key 'r': must be a whole number from 1"),
        ({"megatron_config": {"a": 1}, "megatron_core": "evil"}, "key 'megatron_co"),
        ({"init_lora_weights": "pissa"}, "key 'init_lora_weights': must be True, not 'pissa'"),
        ({"modules_to_save": ["lm_head"]}, "key 'modules_to_save'"),
        ({"target_modules": 3}, "key 'target_modules': must be a list of names"),
        ({"target_modules": "(([a-z_.0-9])+)+!"}, "key 'target_modules': must be a list of names"),
        ({"target_modules": ["nowhere"]}, "can't load the LoRA adapter"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_configuration_of_peft_does_nothing_but_lora(
    given: dict[str, Any], said: str, whole: dict[str, Path], tmp_path: Path
) -> None:
    folder = copy(whole["llama"], tmp_path / "adapter", hashed=False)
    change(folder / "lora/adapter_config.json", lambda data: data.update(given))
    refused(folder, said)


def test_a_module_that_peft_would_import_is_not(
    whole: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "strange_parent.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = copy(whole["llama"], tmp_path / "adapter", hashed=False)
    mapping = {"base_model_class": "Evil", "parent_library": "strange_parent"}
    change(folder / "lora/adapter_config.json", lambda data: data.update(auto_mapping=mapping))
    peml.load(folder)
    assert "strange_parent" not in sys.modules
