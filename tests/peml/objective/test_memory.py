"""What a run needs in memory is estimated from what is really trained, and refused beforehand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import prefixnas.__main__
from peml.methods.lora_kinds import size_of_lora
from peml.model.load import load_language_model
from peml.objective import memory
from peml.prefix.encoder import PrefixEncoder
from prefixnas.base.errors import UserError
from prefixnas.base.memory import TRAINED, memory_of_machine, refuse_beyond
from prefixnas.network.supernet import Supernet, count_parameters
from prefixnas.run.recipe import Recipe
from prefixnas.run.run import Run
from prefixnas.run.strategy import Found, Strategy
from prefixnas.space.loading import space_from_yaml
from prefixnas.strategies import Darts, Evolution, Fixed, RandomSearch, TwoStage
from tests.peml.objective.built import config


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
    encoder = PrefixEncoder(7, 24, None, objective.prefix.sites, attention=attention)
    trained = sum(weight.numel() for weight in encoder.parameters()) * TRAINED
    rest = 4 * objective.prefix.sites[0].kv_heads * objective.prefix.sites[0].head_dim * 7 * 4 * 2
    assert memory._of_prefix(options, objective.lm, objective.prefix.sites) == trained + rest * len(
        objective.prefix.sites
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


SPACE = """
name: two
stack: {layers: 3, cell: [{choice: {key: a, options: [linear, {linear: {bias: false}}]}}, linear]}
"""


@pytest.mark.parametrize(
    ("strategy", "counted"),
    [
        (Darts(), "supernet"),
        (TwoStage(), "supernet"),
        (Evolution(weights="one-shot"), "supernet"),
        (Evolution(), "largest child"),
        (RandomSearch(), "largest child"),
        (Fixed(), "first child"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_a_strategy_really_builds_is_counted(strategy: Strategy, counted: str) -> None:
    space, width = space_from_yaml(SPACE), 5
    alphas = sum(alpha.numel() for alpha in Supernet(space, width).alphas)
    built = {
        "supernet": sum(weight.numel() for weight in Supernet(space, width).parameters()) - alphas,
        "largest child": 6 * (width * width + width),
        "first child": count_parameters(space, space.first({}), width),
    }
    assert built["supernet"] > built["largest child"]
    assert strategy.trained_at_most(space, {}, width) == built[counted]
    without = {"a": "linear(bias=False)"}
    left = 3 * (2 * width * width + width)
    assert strategy.trained_at_most(space, without, width) == left


def test_a_strategy_that_says_nothing_counts_all_candidates() -> None:
    class Mine(Strategy):
        def search(self, run: Run, recipe: Recipe) -> Found:
            raise NotImplementedError

    space = space_from_yaml(SPACE)
    assert Mine().trained_at_most(space, {}, 5) == Darts().trained_at_most(space, {}, 5)


def test_a_supernet_that_cannot_fit_is_refused(
    bench: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One of its architectures fits."""
    (tmp_path / "wide.yaml").write_text(
        "name: wide\nstack: {layers: 1, cell: [{choice: {key: a, options: [relu, "
        + ", ".join(f"{{seq: [linear, {{dropout: 0.{n}}}]}}" for n in range(100, 400))
        + "]}}]}\n"
    )
    given = ["--model", str(bench / "llama"), "--tasks", str(bench / "mood"), "--steps", "4"]
    argv = ["search", *given, "--out", str(tmp_path / "run"), "--prefix-width", "30000"]
    argv += ["--space", str(tmp_path / "wide.yaml"), "--prefix-length", "2"]
    assert prefixnas.__main__.main(argv) == 2
    assert "(the searched module 4,320" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
