from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM

from peml.adapters.export import FORMATS, export
from peml.model.model import LanguageModel
from peml.prefix.handle import attach
from prefixnas.base.errors import UserError
from tests.peml.adapters.trained import assert_same, trained


def test_merged_is_a_plain_folder_with_the_prefix_beside_it(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    lm, adapter = trained("llama", tmp_path)
    export(adapter, tmp_path / "out", "merged", dtype="float64")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float64)
    blocks = load_file(tmp_path / "out" / "prefix.safetensors")["blocks"]
    with attach(plain).using(blocks):
        assert_same(lm, LanguageModel(plain, lm.tokenizer, "decoder", "plain"), "llama")


@pytest.mark.parametrize("format", FORMATS)
def test_an_occupied_or_unwritable_folder_is_refused(format: str, tmp_path: Path) -> None:
    _, adapter = trained("llama", tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious").write_text("mine")
    with pytest.raises(UserError, match="exists and is not empty"):
        export(adapter, out, format)
    assert (out / "precious").read_text() == "mine"
    with pytest.raises(UserError, match="can't write to"):
        export(adapter, out / "precious" / "below", format)


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    _, adapter = trained("llama", tmp_path)
    (tmp_path / "out").mkdir()
    export(adapter, tmp_path / "out", "merged")
    assert AutoModel.from_pretrained(tmp_path / "out").config.model_type == "llama"
