from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import peml
from prefixnas.base.errors import UserError
from tests.peml.adapters.trained import load, trained


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_generation_is_the_models_own_without_the_prompt(kind: str, tmp_path: Path) -> None:
    _, adapter = trained(kind, tmp_path)
    adapted = load(adapter)
    given = adapted.tokenizer("good film : a b", return_tensors="pt")
    written = adapted.model.generate(  # type: ignore[operator]
        input_ids=given["input_ids"], max_new_tokens=5, do_sample=False, pad_token_id=0
    )[0]
    new = written[given["input_ids"].shape[1] :] if kind == "llama" else written
    expected = adapted.tokenizer.decode(new, skip_special_tokens=True)
    adapted.model.train()
    assert adapted.generate("good film : a b", max_new_tokens=5) == expected
    assert adapted.model.training
    assert adapted.prefix is not None
    with adapted.prefix.using(None):
        assert adapted.generate("good film : a b", max_new_tokens=5) != expected


def test_an_encoder_writes_nothing(tmp_path: Path) -> None:
    _, adapter = trained("bert", tmp_path)
    with pytest.raises(UserError, match=r"adapter: the encoder-only model .* cannot write text"):
        load(adapter).generate("good film")


def test_prompts_are_read_as_in_training(tmp_path: Path) -> None:
    _, adapter = trained("llama", tmp_path)
    adapted = load(adapter)
    assert adapted.generate("good film  \n") == adapted.generate("good film")
    assert isinstance(adapted.generate(""), str)
    long = "a " * 100 + "good film"
    assert adapted.generate(long, max_new_tokens=4) == adapted.generate(
        "b " + long, max_new_tokens=4
    )
    with pytest.raises(UserError, match="max_new_tokens: 64 leave no room in 64 tokens"):
        adapted.generate("good film", max_new_tokens=64)


@pytest.mark.parametrize("wrong", [None, 3, ["run"]])
def test_what_is_no_path_is_said(wrong: Any, tmp_path: Path) -> None:
    for call in (peml.load, peml.evaluate, lambda folder: peml.export(folder, tmp_path / "out")):
        with pytest.raises(UserError, match=r"^adapter: expected a path, not "):
            call(wrong)
    _, folder = trained("llama", tmp_path)
    with pytest.raises(UserError, match=r"^the folder to write: expected a path, not "):
        peml.export(folder, wrong)


def test_numbers_of_things_are_whole(bench: Path, tmp_path: Path) -> None:
    adapted = load(trained("llama", tmp_path)[1])
    mood, records = str(bench / "mood"), [{"input": "a"}]
    wrong: list[dict[str, Any]] = [{"eval_limit": "x"}, {"eval_limit": 0}, {"shots": -1}]
    for keys in (*wrong, {"num_beams": 0}, {"max_length": 0}, {"max_length": 1.5}):
        (name,) = keys
        with pytest.raises(UserError, match=f"^{name}: must be a whole number of at least [01]"):
            peml.evaluate(adapted, mood, **keys)
    with pytest.raises(UserError, match=r"^max_length: must be a whole number"):
        peml.predict(adapted, records, max_length=0)
    with pytest.raises(UserError, match=r"^batch_size: must be a whole number"):
        adapted.generate_all(["a"], batch_size=0)
    with pytest.raises(UserError, match="'generate' takes a single one"):
        adapted.generate_all("a b")
