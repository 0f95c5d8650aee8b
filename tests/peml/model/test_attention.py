"""The attention function that a user names is the one that is called, or it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention

import peml.__main__
from peml.model.load import load_language_model
from peml.objective.asked import check_attention, method_of
from peml.objective.config import LanguageModelConfig
from prefixnas.base.errors import UserError
from tests.workbench import SMALL, digest


def config(bench: Path, **options: Any) -> LanguageModelConfig:
    made = {"model": str(bench / "llama"), "tasks": [str(bench / "mood")], "lora_dropout": 0.0}
    return LanguageModelConfig(**made, prefix_length=3, **options)


def test_the_function_that_is_named_is_called(bench: Path) -> None:
    losses = []
    for name in ("sdpa", "eager"):
        objective = config(bench, attn_implementation=name).build(4, 0)
        assert objective.lm.model.config._attn_implementation == name
        objective.reset(None, 0)
        losses.append(objective.backward()["mood"])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def refused(bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    before = digest(tmp_path)
    argv = ["train", "--space", "mlp", "--model", str(bench / "llama")]
    argv += ["--tasks", str(bench / "mood"), *SMALL, *flags, "--out", str(tmp_path / "run")]
    assert peml.__main__.main(argv) == 2
    out, err = capsys.readouterr()
    assert err.startswith("error: ") and err.count("\n") == 1 and not out
    assert digest(tmp_path) == before
    return err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("flash_attention_2", "'flash_attention_2' needs a GPU"),
        ("flex_attention", "'flex_attention' has no backward pass on a CPU"),
        ("flash_attention", "did you mean 'flash_attention_2'?"),
    ],
)
def test_what_a_cpu_cannot_do_is_refused(
    name: str, said: str, bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(bench, tmp_path, capsys, "--attn-implementation", name)


def test_flex_attention_has_no_backward_pass_on_a_cpu() -> None:
    query = torch.ones(1, 1, 16, 16, requires_grad=True)
    with pytest.raises(NotImplementedError, match="backward"):
        flex_attention(query, query, query)


@pytest.mark.parametrize(
    ("kinds", "dense", "by"),
    [
        (("parallel",), False, None),
        (("parallel", "concat"), False, "a prefix with 'concat' attention"),
        (("parallel",), True, "method 'LoRA'"),
    ],
)
def test_what_needs_a_whole_mask_is_refused(
    kinds: tuple[str, ...], dense: bool, by: str | None, bench: Path
) -> None:
    """A prefix in front of the text, or a method that had to switch the function away."""
    lm = load_language_model(bench / "llama")
    asked = config(bench, attn_implementation="flex_attention")
    lm.model.set_attn_implementation("sdpa" if dense else "flex_attention")
    if by is None:
        check_attention(asked, lm, method_of(asked), kinds)
        return
    with pytest.raises(UserError, match=f"'attn_implementation': {by} puts keys into"):
        check_attention(asked, lm, method_of(asked), kinds)
