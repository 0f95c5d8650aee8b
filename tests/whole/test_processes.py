"""One run in several processes is the run of one process; what goes wrong is said in one line."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from subprocess import CompletedProcess

import psutil
import pytest

from peml.prefix.kinds import ATTENTIONS
from prefixnas.__main__ import main
from tests import forked
from tests.workbench import digest, events

STEPS = 20
"""Of the search; one of the two tasks has batches of one example, so that a share is empty."""


def arguments(bench: Path, out: Path, *more: str) -> list[str]:
    argv = ["search", "--model", str(bench / "llama"), "--out", str(out)]
    argv += ["--tasks", str(bench / "mood"), str(bench / "order"), "--gamma", "0.08"]
    argv += ["--steps", "24", "--search-fraction", f"{STEPS / 24}", "--prefix-length", "3"]
    argv += ["--lora-rank", "2", "--relaxation", "gumbel", "--set", "dropout=dropout(0.3)"]
    return [*argv, "--log-every", "1", "--checkpoint-every", "3", *more]


Made = Callable[[str], Path]

"""From a kind of prefix attention to a finished run."""


@pytest.fixture(scope="module")
def one(bench: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    @cache
    def make(attention: str) -> Path:
        run = tmp_path_factory.mktemp("one") / "run"
        assert main(arguments(bench, run, "--prefix-attention", attention)) == 0
        return run

    return make


@pytest.fixture(scope="module")
def two(bench: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    @cache
    def make(attention: str) -> Path:
        run = tmp_path_factory.mktemp("two") / "run"
        more = ["--prefix-attention", attention, "--processes", "2"]
        done = prefixnas(*arguments(bench, run, *more))
        assert done.returncode == 0, done.stderr
        return run

    return make


def prefixnas(*argv: str) -> CompletedProcess[str]:
    """Run the command, whose ranks are processes that have imported everything."""
    return forked.run("-m", "prefixnas", *argv)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_two_processes_make_the_run_of_one(attention: str, one: Made, two: Made) -> None:
    """Gumbel noise, dropout, odd and empty shares: same losses, alphas, pruning, scores."""
    alone, together = one(attention), two(attention)
    pairs = list(zip(events(alone), events(together), strict=True))
    steps = [(a, b) for a, b in pairs if a["event"] == "step"]
    assert len(steps) == 3 * 24  # the run and two baselines
    for a, b in steps:
        assert a["losses"] == pytest.approx(b["losses"], abs=1e-5)
        assert a["entropy" if "entropy" in a else "loss"] == pytest.approx(
            b["entropy" if "entropy" in b else "loss"], abs=1e-5
        )
    for a, b in pairs:
        assert a["event"] == b["event"]
        if a["event"] in ("evaluation", "evidence", "architecture", "prune"):
            assert a == b
    found = [(run / "architecture.yaml").read_text() for run in (alone, together)]
    assert found[0] == found[1]
    assert (alone / "adapter" / "lora").is_dir() and (together / "report.html").is_file()


def test_processes_that_compute_their_shares_in_parts_make_the_run_of_one(
    bench: Path, one: Made, tmp_path: Path
) -> None:
    attention, run = next(iter(ATTENTIONS)), tmp_path / "run"
    more = ["--prefix-attention", attention, "--processes", "2", "--micro-batch-size", "1"]
    done = prefixnas(*arguments(bench, run, *more))
    assert done.returncode == 0, done.stderr
    pairs = list(zip(events(one(attention), "step"), events(run, "step"), strict=True))
    assert len(pairs) == 3 * 24
    for a, b in pairs:
        assert a["losses"] == pytest.approx(b["losses"], abs=1e-5)
    found = [(each / "architecture.yaml").read_text() for each in (one(attention), run)]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "more", [[], ["--micro-batch-size", "1", "--gradient-checkpointing"]], ids=" ".join
)
def test_a_model_in_pieces_makes_the_run_of_one(
    more: list[str], bench: Path, one: Made, tmp_path: Path
) -> None:
    """Each process holds a part of every layer; what trains is whole in both."""
    attention, run = next(iter(ATTENTIONS)), tmp_path / "run"
    flags = ["--prefix-attention", attention, "--processes", "2", "--shard", *more]
    done = prefixnas(*arguments(bench, run, *flags))
    assert done.returncode == 0, done.stderr
    found = events(run, "step")
    assert len(found) == 2 * 24  # the run and a baseline
    for a, b in zip(events(one(attention), "step"), found, strict=False):
        assert a["losses"] == pytest.approx(b["losses"], abs=1e-5)
    scores = [events(each, "evaluation") for each in (one(attention), run)]
    assert [e["scores"] for e in scores[0][: len(scores[1])]] == [e["scores"] for e in scores[1]]
    texts = [(each / "architecture.yaml").read_text() for each in (one(attention), run)]
    assert texts[0] == texts[1]
    said = [event["message"] for event in events(run, "warning")]
    assert any(text.startswith("no baseline at equal weights") for text in said)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "key 'shard': there is one process, and so one piece"),
        (["--processes", "2", "--method", "dora"], "'DoRA' computes with the base model's own"),
        (
            ["--processes", "2", "--strategy", "two-stage", "--proxy", "layers=1"],
            "key 'shard': there is no proxy of a model in pieces",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_a_model_in_pieces_cannot_do_is_refused(
    more: list[str], said: str, bench: Path, tmp_path: Path
) -> None:
    argv = ["search", "--model", str(bench / "llama"), "--tasks", str(bench / "mood")]
    done = prefixnas(*argv, "--shard", *more, "--out", str(tmp_path / "run"))
    assert done.returncode == 2
    assert said in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("rank", "attention"), enumerate(ATTENTIONS))
def test_a_killed_rank_ends_the_run_which_then_goes_on(
    rank: int, attention: str, bench: Path, two: Made, tmp_path: Path
) -> None:
    run, said = tmp_path / "run", tmp_path / "said"
    argv = arguments(bench, run, "--prefix-attention", attention, "--processes", "2", "--resume")
    process = forked.Forked(["-m", "prefixnas", *argv, "--quiet"], tmp_path / "out", said)
    while not (run / "metrics.jsonl").is_file() or len(events(run, "step")) < 8:
        assert process.poll() is None, said.read_text()
        time.sleep(0.02)
    ranks_of(process)[rank].kill()
    assert process.wait() == 1
    *warned, error = said.read_text().splitlines()
    assert error.startswith(f"error: process {rank} of 2 ended by SIGKILL")
    assert all(line.startswith("warning: mood: a step takes 1 of") for line in warned)
    assert "--resume" in error
    assert not (run / "result.json").exists()

    other = ["search", "--resume", "--out", str(run)]
    refused = prefixnas(*other, "--processes", "3")
    assert refused.returncode == 2
    assert "'processes' was 2 and is now 3" in refused.stderr
    assert prefixnas(*other).returncode == 0
    assert digest(run / "adapter") == digest(two(attention) / "adapter")
    assert events(run) == events(two(attention))


def ranks_of(process: forked.Forked) -> list[psutil.Process]:
    """Return the processes that it started to train, by rank."""
    children = psutil.Process(process.pid).children()
    assert len(children) == 2
    return sorted(children, key=lambda child: (child.create_time(), child.pid))


def test_an_objective_that_does_not_split_its_batches(tmp_path: Path) -> None:
    argv = ["search", "--objective", "tabular", "--space", "tabular", "--processes", "2"]
    done = prefixnas(*argv, "--out", str(tmp_path / "run"))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "'tabular' does not split its batches" in done.stderr
    assert not (tmp_path / "run").exists()


def test_another_number_than_the_launcher_started(
    bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(bench, tmp_path / "run", "--processes", "0")) == 2
    assert "'processes': must be at least 1" in capsys.readouterr().err
