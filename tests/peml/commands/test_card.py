"""Model cards: what they say is so, the code on them runs, and a hub takes them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard, constants, metadata_load
from huggingface_hub.repocard_data import model_index_to_eval_results
from safetensors.torch import load_file

import peml
from peml.__main__ import main
from peml.adapters.card import write_run_card
from peml.adapters.export import FORMATS
from peml.adapters.left_out import EXAMPLES
from prefixnas import Architecture
from prefixnas.base.errors import UserError
from tests.hub import card_faults, hub

Trained = Callable[[str], Path]


@pytest.fixture(scope="module")
def exported(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The adapter of a run, and its exports."""
    run, place = trained("llama"), tmp_path_factory.mktemp("exports")
    for format in FORMATS:
        peml.export(run, place / format, format, warn=lambda message: None)
    return {"adapter": run / "adapter", **{format: place / format for format in FORMATS}}


def result(run: Path) -> Any:
    return json.loads((run / "result.json").read_text())


def scores(card: ModelCard) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for entry in card.data.eval_results or ():
        found.setdefault(entry.dataset_name, {})[entry.metric_type] = entry.metric_value
    return found


@pytest.mark.parametrize("kind", ["adapter", "peml", "peft"])
def test_the_model_index_holds_the_scores_of_the_run(
    kind: str, exported: dict[str, Path], trained: Trained
) -> None:
    path = exported[kind] / "README.md"
    card = ModelCard.load(path)
    assert scores(card) == result(trained("llama"))["columns"]["trained child"]["scores"]
    _, read = model_index_to_eval_results(metadata_load(path)["model-index"])  # type: ignore[index]
    assert read == card.data.eval_results
    assert {entry.dataset_split for entry in read} == {"validation"}


def test_what_lacks_its_prefix_claims_no_scores(exported: dict[str, Path]) -> None:
    card = ModelCard.load(exported["merged"] / "README.md")
    assert not card.data.get("eval_results") and "Warning:" in card.text


@pytest.mark.parametrize("kind", ["adapter", *FORMATS])
def test_a_hub_takes_the_card(
    kind: str, exported: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    card = ModelCard.load(exported[kind] / "README.md")
    assert ModelCard(str(card)).data.to_dict() == card.data.to_dict()
    with hub() as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        card.validate()
        assert served.asked == ["POST /api/validate-yaml"]
        card.data["base_model"] = "/a/folder/of/mine"
        with pytest.raises(ValueError, match="is no id of the hub"):
            card.validate()


@pytest.mark.parametrize("kind", ["adapter", *FORMATS])
def test_the_code_on_the_card_runs(
    kind: str,
    exported: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = (exported[kind] / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(exported[kind])
    exec(code, {"__name__": "card"})
    assert capsys.readouterr().out.strip()


def test_the_code_on_the_card_of_an_encoder_runs(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = trained("bert") / "adapter"
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(folder)
    exec(code, {"__name__": "card"})
    assert "tensor" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["adapter", *FORMATS])
def test_the_card_says_what_was_trained(
    kind: str, exported: dict[str, Path], trained: Trained
) -> None:
    run = trained("llama")
    text = (exported[kind] / "README.md").read_text()
    assert "mood, order" in text and "LoRA (`lora`) of rank 2" in text
    assert "a prefix of 3 virtual tokens" in text and "search space `mlp`" in text
    for column, scored in result(run)["columns"].items():
        assert (column in text) == (scored is not None)
    assert str(run.parent) not in text and str(Path.home()) not in text


def test_the_card_of_a_search_shows_what_was_found(trained: Trained, tmp_path: Path) -> None:
    shutil.copytree(trained("llama"), tmp_path / "run")
    found = Architecture({"layer0/activation": "tanh", "layer1/activation": "relu"}, "default")
    found.save(tmp_path / "run" / "architecture.yaml")
    write_run_card(tmp_path / "run")
    text = (tmp_path / "run" / "adapter" / "README.md").read_text()
    assert "| layer | activation |" in text
    assert "| layer0 | tanh |" in text and "| layer1 | relu |" in text


def test_scores_stay_with_an_adapter_that_left_its_run(
    exported: dict[str, Path], bench: Path, tmp_path: Path
) -> None:
    shutil.copytree(exported["adapter"], tmp_path / "moved")
    peml.export(tmp_path / "moved", tmp_path / "out", model=bench / "llama")
    before, after = (exported["peml"] / "README.md", tmp_path / "out" / "README.md")
    assert scores(ModelCard.load(after)) == scores(ModelCard.load(before))
    assert "search space `mlp`" in after.read_text()


def test_an_export_of_an_export_keeps_its_card(exported: dict[str, Path], tmp_path: Path) -> None:
    peml.export(exported["peml"], tmp_path / "again")
    again = ModelCard.load(tmp_path / "again" / "README.md")
    assert scores(again) == scores(ModelCard.load(exported["peml"] / "README.md"))
    assert "LoRA (`lora`) of rank 2" in again.text


def test_the_drawing_lies_beside_the_card(bench: Path, trained: Trained, tmp_path: Path) -> None:
    shutil.copytree(trained("llama"), tmp_path / "run")
    plots = tmp_path / "run" / "plots"
    plots.mkdir(exist_ok=True)
    (plots / "architecture.png").write_bytes(b"a drawing")
    peml.export(tmp_path / "run", tmp_path / "out", model=bench / "llama")
    assert (tmp_path / "out" / "architecture.png").read_bytes() == b"a drawing"
    assert "](architecture.png)" in (tmp_path / "out" / "README.md").read_text()


def test_the_licence_is_that_of_the_base_where_it_says_so(
    exported: dict[str, Path], bench: Path, tmp_path: Path
) -> None:
    assert "license" not in metadata_load(exported["peml"] / "README.md")  # type: ignore[operator]
    assert "not named here" in (exported["peml"] / "README.md").read_text()
    shutil.copytree(bench / "llama", tmp_path / "base")
    (tmp_path / "base" / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Base\n")
    peml.export(exported["adapter"], tmp_path / "out", model=tmp_path / "base")
    assert ModelCard.load(tmp_path / "out" / "README.md").data.license == "apache-2.0"


@pytest.mark.parametrize("card", ["---\nlicense: [\n---\n", "---\nlicense: 3\n---\n", "\xff"])
def test_a_damaged_card_of_the_base_is_no_licence(
    card: str, exported: dict[str, Path], bench: Path, tmp_path: Path
) -> None:
    shutil.copytree(bench / "llama", tmp_path / "base")
    (tmp_path / "base" / "README.md").write_bytes(card.encode("latin-1"))
    peml.export(exported["adapter"], tmp_path / "out", model=tmp_path / "base")
    assert "license" not in ModelCard.load(tmp_path / "out" / "README.md").data.to_dict()


def test_a_damaged_result_is_said_and_not_used(
    trained: Trained, bench: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained("llama"), tmp_path / "run")
    (tmp_path / "run" / "result.json").write_text("{")
    said: list[str] = []
    peml.export(tmp_path / "run", tmp_path / "out", model=bench / "llama", warn=said.append)
    assert len(said) == 1 and "result.json: not valid JSON" in said[0]


def test_merged_says_what_it_scores_without_its_prefix(
    trained: Trained, exported: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    argv = ["export", str(trained("llama")), str(tmp_path / "out"), "--format", "merged"]
    assert main(argv) == 0
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "warning:" in line)
    adapted = peml.load(exported["peml"])
    tasks = peml.load_tasks(adapted.manifest.sources, eval_limit=EXAMPLES)
    both = []
    for blocks in (load_file(tmp_path / "out" / "prefix.safetensors")["blocks"], None):
        adapted.prefix.set(blocks)  # type: ignore[union-attr]
        values = [each["accuracy"] for each in peml.evaluate(adapted, tasks).values()]
        both.append(sum(values) / len(values))
    assert f"it scores {both[1]:.3f} instead of {both[0]:.3f}" in line
    assert line.startswith("warning: without its prefix the model is ")
    assert line.removeprefix("warning: ").split(";")[0] in (tmp_path / "out/README.md").read_text()


def test_merged_without_the_tasks_still_warns(
    trained: Trained, bench: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained("llama") / "adapter", tmp_path / "moved")
    said: list[str] = []
    peml.export(
        tmp_path / "moved", tmp_path / "out", "merged", model=bench / "llama", warn=said.append
    )
    assert len(said) == 1 and "the model is worse than what was trained;" in said[0]


def test_what_keeps_its_prefix_does_not_warn(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    for format in ("peml", "peft"):
        assert (
            main(["export", str(trained("llama")), str(tmp_path / format), "--format", format]) == 0
        )
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "card",
    [
        "no metadata at all",
        "---\nbase_model: /a/folder\n---\n",
        "---\nlicense: [mit]\n---\n",
        "---\nmodel-index: [{name: a, results: [{task: {type: b}, dataset: {type: c, name: ''},"
        " metrics: []}]}]\n---\n",
    ],
)
def test_the_hub_of_the_tests_refuses_what_is_wrong(card: str) -> None:
    assert card_faults(card)


def test_an_adapter_that_is_gone_needs_no_card(tmp_path: Path) -> None:
    write_run_card(tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "peml.json").write_text("{")
    with pytest.raises(UserError, match=r"peml\.json: damaged"):
        write_run_card(tmp_path)
