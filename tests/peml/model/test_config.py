"""A model's configuration is looked at before a library acts on it: one line, and no code runs."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peml.model import config as configuration
from peml.model.load import load_language_model
from prefixnas.base.errors import UserError
from tests.peml.model.test_model import saved


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved("llama", tmp_path_factory.mktemp("models") / "llama")


def refused(folder: Path, given: dict[str, Any], copy: Path) -> str:
    """Return what is said of a model with other values in its configuration."""
    shutil.copytree(folder, copy, dirs_exist_ok=True)
    known = json.loads((folder / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**known, **given}))
    with pytest.raises(UserError) as error:
        load_language_model(copy)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(copy))
    return str(error.value)


KERNEL = "kernels-community/flash-attn"


@pytest.mark.parametrize(
    "given",
    [
        {"attn_implementation": KERNEL},
        {"_attn_implementation": KERNEL},
        {"_attn_implementation_internal": f"{KERNEL}@main:forward"},
        {"attn_implementation": {"text_config": KERNEL}},
        {"text_config": {"_attn_implementation": KERNEL}},
        {"experts_implementation": "someone/experts"},
        {"attn_implementation": "paged|someone/attention"},
    ],
    ids=str,
)
def test_a_kernel_of_the_hub_is_never_loaded(
    given: dict[str, Any], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers.integrations.hub_kernels as kernels

    asked: list[object] = []
    monkeypatch.setattr(kernels, "get_kernel", lambda *given, **more: asked.append(given))
    said = refused(folder, given, tmp_path / "model")
    assert "code from the hub; take the key away" in said
    assert not asked


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"num_attention_heads": 0}, "key 'num_attention_heads': must be a whole number from 1"),
        ({"num_key_value_heads": 0}, "key 'num_key_value_heads': must be a whole number from 1"),
        ({"hidden_size": "wide"}, "key 'hidden_size': must be a whole number from 1"),
        ({"hidden_size": -4}, "key 'hidden_size': must be a whole number from 1"),
        ({"hidden_size": 32.5}, "key 'hidden_size': must be a whole number from 1"),
        ({"vocab_size": True}, "key 'vocab_size': must be a whole number from 1"),
        ({"num_hidden_layers": 10**6}, "key 'num_hidden_layers': must .* to 1,000, not 1000000"),
        ({"text_config": {"num_hidden_layers": 10**6}}, "key 'num_hidden_layers'"),
        ({"rope_parameters": 3}, "can't read the configuration"),
        ({"hidden_act": "reluu"}, "can't load the weights"),
        ({"hidden_size": 7}, "model"),
    ],
    ids=str,
)
def test_sizes_that_no_model_has_are_refused(
    given: dict[str, Any], said: str, folder: Path, tmp_path: Path
) -> None:
    assert re.search(said, refused(folder, given, tmp_path / "model"))


def test_a_configuration_that_is_no_object_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "model")
    for text in ("[]", "3", "null", "", "{", "[" * 10**5):
        (tmp_path / "model" / "config.json").write_text(text)
        with pytest.raises(UserError, match=r"can't read the configuration|must be an object"):
            load_language_model(tmp_path / "model")


def test_a_model_beyond_the_memory_is_refused_before_it_is_built(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(configuration, "memory_of_machine", lambda: 1000)
    with pytest.raises(UserError, match=r"needs at least .* \(the model .*the machine has 0\.0 MB"):
        load_language_model(folder)


WORDS = ["hidden_size", "num_hidden_layers", "model_type", "architectures", "rope_parameters"]
WORDS += ["rms_norm_eps", "torch_dtype", "dtype", "tie_word_embeddings", "layer_types", "head_dim"]
JSON = st.none() | st.booleans() | st.integers(-1, 10**9) | st.floats() | st.text(max_size=5)


@given(st.dictionaries(st.sampled_from(WORDS), JSON | st.lists(JSON, max_size=2), max_size=3))
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_whatever_it_says_it_is_read_or_refused_in_one_line(
    folder: Path, tmp_path: Path, given: dict[str, Any]
) -> None:
    shutil.copytree(folder, tmp_path / "model", dirs_exist_ok=True)
    known = json.loads((folder / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps({**known, **given}))
    try:
        load_language_model(tmp_path / "model")
    except UserError as error:
        assert "\n" not in str(error)
