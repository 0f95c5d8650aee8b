"""Commands that look at runs, or make many, do so with every kind of prefix attention."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import yaml

from peml.adapters.manifest import read_manifest
from peml.prefix.kinds import ATTENTIONS
from prefixnas.__main__ import main
from tests import forked
from tests.workbench import SMALL

KEYS = {"prefix_length": 3, "lora_rank": 2, "batch_size": 4}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def kinds(folder: Path) -> list[str]:
    """Return how the adapters of all runs below a folder read their prefix."""
    return sorted(read_manifest(path.parent).attention for path in folder.rglob("peml.json"))


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_searches_are_diagnosed_and_set_side_by_side(
    attention: str, bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [str(tmp_path / f"run{seed}") for seed in (0, 1)]
    argv = ["search", "--model", str(bench / "llama"), "--tasks", str(bench / "mood"), *SMALL]
    argv += ["--prefix-attention", attention, "--baseline", "none", "--eval-limit", "4"]
    for seed, run in enumerate(runs):
        assert main([*argv, "--seed", str(seed), "--out", run]) == 0
    capsys.readouterr()
    assert main(["diagnose", runs[0], "--replay", "2", "--batches", "2"]) == 0
    said, warned = capsys.readouterr()
    assert "L_theta_alpha, mean of the steps" in said
    assert "of the second search are" not in warned, "it took the same steps"
    assert main(["stability", *runs, "--out", str(tmp_path / "stability")]) == 0
    assert len(rows(tmp_path / "stability" / "runs.csv")) == 2
    assert kinds(tmp_path) == [attention] * 2


@pytest.mark.slow
def test_a_comparison_of_the_kinds(bench: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    variants = ",".join(f"darts:prefix_attention={attention}" for attention in ATTENTIONS)
    argv = ["compare", "--strategies", variants, "--seeds", "0", "--budget", "4", "--trials", "1"]
    argv += ["--model", str(bench / "llama"), "--tasks", str(bench / "mood"), *SMALL[2:]]
    argv += ["--references", "none", "--random-draws", "0", "--baseline", "none", "--out", str(out)]
    done = forked.run("-m", "prefixnas", *argv)
    assert done.returncode == 0, done.stderr
    found = {row["label"]: row["state"] for row in rows(out / "runs.csv")}
    assert found == dict.fromkeys(["random", *variants.split(",")], "finished")
    for attention in ATTENTIONS:
        (run,) = out.glob(f"default/*{attention}*/seed0")
        assert read_manifest(run).attention == attention


@pytest.mark.slow
def test_a_study_over_the_kinds(bench: Path, tmp_path: Path) -> None:
    base = {**KEYS, "model": str(bench / "llama"), "tasks": [str(bench / "mood")], "steps": 4}
    study = {
        "base": base,
        "hyperparameters": {"prefix_attention": {"choice": [*ATTENTIONS]}},
        "sampler": {"grid": {"search_space": {"prefix_attention": [*ATTENTIONS]}}},
        "trials": 2,
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    argv = ["tune", str(tmp_path / "study.yaml"), "--out", str(tmp_path / "study")]
    done = forked.run("-m", "prefixnas", *argv)
    assert done.returncode == 0, done.stderr
    assert kinds(tmp_path / "study") == sorted(ATTENTIONS)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_an_architecture_is_carried_to_other_tasks(
    attention: str, bench: Path, tmp_path: Path
) -> None:
    for task in ("mood", "order"):
        keys = {**KEYS, "model": str(bench / "llama"), "tasks": [str(bench / task)]}
        (tmp_path / f"{task}.yaml").write_text(yaml.safe_dump(keys))
    argv = ["transfer", "mood.yaml", "order.yaml", "--seeds", "0", "--steps", "4", "--no-control"]
    argv += ["--prefix-attention", attention, "--out", "out"]
    done = forked.run("-m", "prefixnas", *argv, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    there, back = rows(tmp_path / "out" / "transfer.csv")
    assert all(value for value in (*there.values(), *back.values()))
    # A search and what is only trained, on either task.
    assert kinds(tmp_path / "out") == [attention] * 4
