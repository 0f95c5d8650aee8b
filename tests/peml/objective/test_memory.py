"""What a run needs in memory is estimated from what is really trained, and refused beforehand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import prefixnas.__main__
from peml.methods.peft_lora import size_of_lora
from peml.model.model import load_language_model
from peml.objective import memory
from peml.prefix.encoder import PrefixEncoder
from prefixnas.base.errors import UserError
from prefixnas.base.memory import TRAINED, memory_of_machine, refuse_beyond
from tests.peml.objective.test_objective import config


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora", "adalora"])
@pytest.mark.parametrize("family", ["llama", "t5", "bert"])
def test_the_size_of_lora_is_what_is_trained(bench: Path, family: str, kind: Any) -> None:
    objective = config(bench, family, method=kind, lora_rank=3).build(10, 0)
    trained = sum(weight.numel() for weight in objective.method.parameters())
    estimated = size_of_lora(load_language_model(bench / family), kind, 3, None)
    assert estimated == trained


@pytest.mark.parametrize("attention", ["parallel", "concat"])
def test_the_size_of_the_prefix_is_what_is_trained(bench: Path, attention: Any) -> None:
    options = config(bench, prefix_attention=attention, prefix_length=7, prefix_width=24)
    objective = options.build(10, 0)
    encoder = PrefixEncoder(7, 24, None, objective.sites, attention=attention)
    trained = sum(weight.numel() for weight in encoder.parameters()) * TRAINED
    rest = 4 * objective.sites[0].kv_heads * objective.sites[0].head_dim * 7 * 4 * 2
    assert memory._of_prefix(options, objective.lm, objective.sites) == trained + rest * len(
        objective.sites
    )


def test_the_largest_part_comes_first() -> None:
    refuse_beyond({"a": 10**9, "b": 10**9}, 2 * 10**9)
    with pytest.raises(UserError) as refused:
        refuse_beyond({"a": 10**9, "b": 3 * 10**9}, 2 * 10**9)
    assert str(refused.value) == (
        "the run needs at least 4.0 GB of memory (b 3.0 GB, a 1.0 GB), and the machine has 2.0 GB"
    )
    assert 10**8 < memory_of_machine() < 10**14


@pytest.mark.parametrize(
    ("flags", "largest"),
    [
        ("--prefix-width 100000 --prefix-length 10000", "the prefix"),
        ("--lora-rank 10000", "LoRA"),
        ("--batch-size 100000 --sampling round-robin", "batches"),
    ],
)
def test_what_cannot_fit_is_refused_before_anything_is_written(
    bench: Path,
    tmp_path: Path,
    flags: str,
    largest: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "memory_of_machine", lambda: 100_000)
    given = ["--model", str(bench / "llama"), "--tasks", str(bench / "mood"), "--steps", "4"]
    argv = ["search", *given, "--out", str(tmp_path / "run"), *flags.split()]
    assert prefixnas.__main__.main(argv) == 2
    printed = capsys.readouterr().err
    assert re.search(
        rf"needs at least .* of memory \({largest} .*the machine has 0.1 MB\n", printed
    )
    assert printed.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_searched_module_that_cannot_fit_is_refused(
    bench: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ["--model", str(bench / "llama"), "--tasks", str(bench / "mood"), "--steps", "4"]
    (tmp_path / "wide.yaml").write_text(
        "name: wide\nstack: {layers: 2000, cell: [{choice: {key: a, options: [linear]}}]}\n"
    )
    argv = ["search", *given, "--out", str(tmp_path / "run"), "--prefix-width", "10000"]
    argv += ["--space", str(tmp_path / "wide.yaml"), "--strategy", "fixed"]
    assert prefixnas.__main__.main(argv) == 2
    assert "(the searched module 3,200" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
