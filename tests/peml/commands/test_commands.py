"""`peml train | evaluate | export | generate` on tiny models."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

import peml
from peml.__main__ import main
from tests.workbench import SMALL, digest, events

Trained = Callable[[str], Path]


def result(run: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((run / "result.json").read_text())
    return loaded


def test_train_spends_all_steps_on_one_architecture(trained: Trained) -> None:
    run = trained("llama")
    phases = [event["phase"] for event in events(run, "step")]
    assert phases == ["train"] * 4 + ["baseline"] * 4 + ["baseline at equal weights"] * 4
    assert result(run)["architecture"] == {}
    assert yaml.safe_load((run / "config.yaml").read_text())["strategy"] == "fixed"
    assert result(run)["columns"]["mixture"] is None


def test_train_takes_the_architecture_of_another_run(bench: Path, tmp_path: Path) -> None:
    shared = ["--model", str(bench / "llama"), "--tasks", str(bench / "mood"), *SMALL]
    chosen = ["--set", "layer0/activation=gelu", "layer3/activation=tanh"]
    assert main(["train", *shared, *chosen, "--out", str(tmp_path / "first")]) == 0
    argv = ["train", *shared, "--arch", str(tmp_path / "first"), "--baseline", "none"]
    assert main([*argv, "--out", str(tmp_path / "second")]) == 0
    first, second = result(tmp_path / "first"), result(tmp_path / "second")
    assert first["architecture"] == second["architecture"]
    assert first["architecture"]["layer0/activation"] == "gelu"
    assert first["columns"]["trained child"] == second["columns"]["trained child"]
    assert "LoRA alone" in first["columns"] and "LoRA alone" not in second["columns"]


def test_a_run_brings_its_own_space(
    bench: Path, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = trained("llama"), tmp_path / "second"  # in the space "mlp"
    shared = ["--model", str(bench / "llama"), "--tasks", str(bench / "mood"), *SMALL]
    argv = ["train", *shared, "--arch", str(first), "--baseline", "none", "--out", str(second)]
    assert main(argv) == 0
    assert (second / "space.yaml").read_bytes() == (first / "space.yaml").read_bytes()
    capsys.readouterr()
    assert main([*argv[:-1], str(tmp_path / "third"), "--space", "paper"]) == 2
    assert "space 'paper'" in capsys.readouterr().err


@pytest.mark.parametrize("family", ["llama", "t5", "bert"])
def test_evaluate_repeats_the_scores_of_the_run(
    family: str, trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(family)
    capsys.readouterr()
    assert main(["evaluate", str(run), "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == result(run)["columns"]["trained child"]
    assert all("predictions are the same" in line for line in err.splitlines())


def test_evaluate_prints_a_table_and_takes_other_splits(
    bench: Path, trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained("llama")
    capsys.readouterr()
    argv = ["evaluate", str(run), "--tasks", str(bench / "order"), "--split", "train"]
    assert main([*argv, "--eval-limit", "4"]) == 0
    printed = capsys.readouterr().out
    assert "order" in printed and "accuracy" in printed and "mood" not in printed
    assert "average" not in printed


def test_evaluate_says_how_far_scores_scatter_as_the_run_does(
    bench: Path, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Behind each task's score, and the average, stands what the run's own table has there."""
    column = result(run := trained("llama"))["columns"]["trained child"]
    capsys.readouterr()
    assert main(["evaluate", str(run)]) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines() if "±" in line]
    errors = column["standard_errors"] | {"average": column["standard_error"]}
    scores = column["task_scores"] | {"average": column["score"]}
    assert {words[0]: words[-3:] for words in shown} == {
        name: [f"{scores[name]:.3f}", "±", f"{1.959964 * errors[name]:.3f}"] for name in errors
    }
    task = {"source": str(bench / "mood"), "name": "mood", "metrics": ["accuracy", "macro_f1"]}
    (tmp_path / "mood.yaml").write_text(json.dumps(task))
    assert main(["evaluate", str(run), "--tasks", str(tmp_path / "mood.yaml")]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if "mood" in line]
    assert [line[1:-1] if "±" not in line else line[1:4] for line in lines] == [
        ["accuracy"], ["macro_f1"], ["mean", "of", "these"]
    ]  # fmt: skip


@pytest.mark.parametrize("family", ["llama", "t5", "bert"])
def test_an_exported_folder_scores_and_answers_alike(
    family: str, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = trained(family), tmp_path / "out"
    before = digest(run)
    assert main(["export", str(run), str(out)]) == 0
    assert digest(run) == before
    capsys.readouterr()
    printed = []
    for folder in (run, out):
        argv = ["evaluate", str(folder), "--json"]
        assert main(argv) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    models = [peml.load(folder) for folder in (run, out)]
    tokens = torch.tensor([[5, 10, 7, 12]])
    extra = {"decoder_input_ids": torch.tensor([[0, 4]])} if family == "t5" else {}
    with torch.no_grad():
        outputs = [model.model(input_ids=tokens, **extra)[0] for model in models]
        models[0].prefix.set(None)  # type: ignore[union-attr]
        without = models[0].model(input_ids=tokens, **extra)[0]
    torch.testing.assert_close(outputs[0], outputs[1], rtol=0, atol=1e-5)
    assert (outputs[0] - without).abs().max() > 1e-4


def test_merged_and_peft_exports(trained: Trained, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    run = trained("llama")
    assert main(["export", str(run), str(tmp_path / "merged"), "--format", "merged"]) == 0
    blocks = load_file(tmp_path / "merged/prefix.safetensors")["blocks"]
    assert torch.equal(blocks, load_file(run / "adapter/prefix.safetensors")["blocks"])
    assert main(["export", str(run), str(tmp_path / "peft"), "--format", "peft"]) == 0
    ours = peml.load(run)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "peft/merged")
    theirs = PeftModel.from_pretrained(base, str(tmp_path / "peft")).eval()
    inputs = {"input_ids": torch.tensor([[5, 10, 7, 12]]), "attention_mask": torch.ones(1, 4)}
    with torch.no_grad():
        wanted = ours.model(**inputs).logits
        torch.testing.assert_close(theirs(**inputs).logits, wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_generate_from_arguments_and_from_a_pipe(
    family: str,
    trained: Trained,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = str(trained(family))
    prompts = ["film good a b", "plot bad"]
    capsys.readouterr()
    assert main(["generate", run, *prompts, "--max-new-tokens", "4"]) == 0
    first = capsys.readouterr().out
    assert first.count("\n") == 2
    assert main(["generate", run, "--max-new-tokens", "4", *prompts]) == 0
    assert capsys.readouterr().out == first
    monkeypatch.setattr("sys.stdin", io.StringIO(prompts[0] + "\n"))
    assert main(["generate", run, "--max-new-tokens", "4"]) == 0
    assert capsys.readouterr().out == first.splitlines(keepends=True)[0]


def test_an_encoder_cannot_write(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(trained("bert"))
    capsys.readouterr()
    assert main(["generate", run, "film"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "cannot write" in error


def test_peft_refuses_what_it_cannot_hold(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(trained("t5"))
    capsys.readouterr()
    assert main(["export", run, str(tmp_path / "out"), "--format", "peft"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "peml" in error
    assert digest(tmp_path) == {}


def test_tasks_without_a_head_are_refused(
    bench: Path, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "strange.yaml").write_text(f"source: {bench / 'mood'}\nname: moood\n")
    run = str(trained("bert"))
    capsys.readouterr()
    assert main(["evaluate", run, "--tasks", str(tmp_path / "strange.yaml")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "'moood'" in error and "'mood'" in error


def test_evaluate_cuts_prompts_where_the_run_did(
    bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    argv = ["train", "--model", str(bench / "llama"), "--tasks", str(bench / "mood"), *SMALL]
    argv += ["--space", "mlp", "--max-length", "5", "--baseline", "none", "--out", str(run)]
    assert main(argv) == 0
    capsys.readouterr()
    assert main(["evaluate", str(run), "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == result(run)["columns"]["trained child"]
    assert [line for line in err.splitlines() if "longer than the model's window" in line]
    assert main(["evaluate", str(run), "--max-length", "60"]) == 0
    assert "longer" not in capsys.readouterr().err


def test_tasks_shows_what_the_model_sees(
    bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "validation"):
        cells = "2021-03-01,007,true\n12:30,010,false\n1e-1,1.50,yes\n"
        (tmp_path / f"{split}.csv").write_text(f"when,code,label\n{cells}")
    (tmp_path / "task.yaml").write_text('name: odd\ntemplate: "{when} {code}\\n?"\n')
    capsys.readouterr()
    argv = ["tasks", str(tmp_path), str(bench / "mood"), "--split", "validation", "--show", "2"]
    assert main(argv) == 0
    shown = capsys.readouterr().out
    assert "kind        generation" in shown and "metrics     exact_match" in shown
    assert "validation  3 examples; 3 different answers, most often 'true' 1" in shown
    assert r"  reads   '2021-03-01 007\n?'" in shown
    assert "writes  ' true'" in shown and "1e-1" not in shown
    assert "choices     'yes', 'no'" in shown and shown.count("  reads") == 4
    assert main(["tasks", str(bench / "mood"), "--tokens", "--model", str(bench / "llama")]) == 0
    tokens = [line for line in capsys.readouterr().out.splitlines() if "  tokens" in line]
    assert len(tokens) == 5 and all("film" in line or "plot" in line for line in tokens)


def test_tasks_names_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.csv").write_text("input,label\na\n")
    capsys.readouterr()
    assert main(["tasks", str(tmp_path)]) == 2
    assert "train.csv, line 2: 1 cells under 2 names" in capsys.readouterr().err


def test_a_dry_run_shows_the_tasks_in_short(
    bench: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["train", "--dry-run", "--tasks", str(bench / "mood")]) == 0
    printed = capsys.readouterr().out
    line = "# mood: choice of 'yes', 'no'; accuracy; train 22, selection 2, validation 6"
    assert printed.splitlines()[-1] == line
    assert yaml.safe_load(printed)["tasks"] == [str(bench / "mood")]


def test_prompts_of_validation_are_shown_behind_their_shots(
    bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "two.yaml"
    file.write_text(f"source: {bench / 'mood'}\nname: two\nshots: 2\n")
    (task,) = peml.load_tasks([file])
    argv = ["tasks", str(file), "--show", "1", "--tokens", "--model", str(bench / "llama")]
    for split, shots in (("validation", task.shots), ("train", ())):
        assert main([*argv, "--split", split]) == 0
        shown = capsys.readouterr().out
        (example, *_) = task.splits[split]
        text = "".join(f"{shot.prompt} {shot.answer}\n\n" for shot in shots) + example.prompt
        assert f"  reads   {text!r}" in shown
        assert f"  tokens  {' '.join(text.split())}\n" in shown
        assert "shots       2 examples; 'yes'" in shown


def test_evaluate_takes_shots(
    trained: Trained, bench: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["evaluate", str(trained("llama")), "--tasks", str(bench / "mood"), "--max-length", "9"]
    assert main([*argv, "--shots", "0"]) == 0
    assert main([*argv, "--shots", "2"]) == 2
    assert "task 'mood': its 2 shots take 12 tokens" in capsys.readouterr().err
    assert main([*argv, "--shots", "-1"]) == 2
    assert "must be a whole number of at least 0" in capsys.readouterr().err
