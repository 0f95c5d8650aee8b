"""One run in several processes is the run of one process; what goes wrong is said in one line."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import psutil
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from peml.batches.shares import Share, WholeDraws
from peml.prefix.kinds import ATTENTIONS
from prefixnas.__main__ import main
from prefixnas.base.errors import RunLost, UserError
from prefixnas.launch.processes import launch
from prefixnas.launch.together import Follower
from prefixnas.run.events import End
from prefixnas.run.ranks import Ranks, check_devices, said_once
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
    argv = arguments(bench, run, "--prefix-attention", attention, "--processes", "2")
    process = forked.Forked(["-m", "prefixnas", *argv, "--quiet"], tmp_path / "out", said)
    while not (run / "metrics.jsonl").is_file() or len(events(run, "step")) < 8:
        assert process.poll() is None, said.read_text()
        time.sleep(0.02)
    ranks_of(process)[rank].kill()
    assert process.wait() == 1
    error = said.read_text().strip()
    assert error.startswith(f"error: process {rank} of 2 ended by SIGKILL") and "\n" not in error
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


def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    check_devices(1)
    with pytest.raises(UserError, match="2 processes need a GPU each, and there are 1"):
        launch(["true"], 2, lambda: None)


# The launcher


def ranks_that(code: str) -> list[str]:
    return [sys.executable, "-c", "import os, sys, time; rank = int(os.environ['RANK'])\n" + code]


def test_the_launcher_says_what_rank_0_found_wrong() -> None:
    with pytest.raises(UserError, match=r"^no such task$"):
        launch(ranks_that("sys.exit('error: no such task') if rank > 5 else 0"), 1, no_watch)
        launch(ranks_that("print('error: no such task', file=sys.stderr); exit(2)"), 2, no_watch)


def test_the_launcher_ends_the_others_when_one_fails() -> None:
    began, before = time.monotonic(), psutil.Process().children()
    with pytest.raises(RunLost, match=r"process 1 of 2 ended by SIGKILL"):
        launch(ranks_that("if rank: os.kill(os.getpid(), 9)\ntime.sleep(60)"), 2, no_watch)
    with pytest.raises(RunLost, match=r"process 0 of 2 failed \(exit code 7\)"):
        launch(ranks_that("if not rank: exit(7)\ntime.sleep(60)"), 2, no_watch)
    assert time.monotonic() - began < 40
    assert psutil.Process().children() == before


def test_what_a_watcher_raises_ends_the_processes() -> None:
    def watch() -> None:
        raise LookupError

    before = psutil.Process().children()
    with pytest.raises(LookupError):
        launch(ranks_that("time.sleep(60)"), 2, watch)
    assert psutil.Process().children() == before


def test_signals_are_handled_as_before_a_launch() -> None:
    before = signal.getsignal(signal.SIGTERM)
    launch(ranks_that(""), 2, no_watch)
    assert signal.getsignal(signal.SIGTERM) is before


def no_watch() -> None:
    return


def test_ranks_tell_each_other(tmp_path: Path) -> None:
    """JSON of different lengths, sums per dtype, rank 0's word, and its failure."""
    program = tmp_path / "program.py"
    program.write_text(
        """
import json, sys
import torch
from pathlib import Path
from prefixnas.base.errors import Ended
from prefixnas.run.events import End
from prefixnas.run.ranks import end_now, join, leave

ranks = join()
tensors = [torch.full((2,), ranks.rank + 1.0), torch.tensor(3.0, dtype=torch.float64)]
ranks.sum(tensors)
told = [ranks.gather("x" * (1 + 50 * ranks.rank)), ranks.agree(ranks.rank + 5)]
told += [tensor.tolist() for tensor in tensors]

def make():
    if ranks.first:
        raise LookupError
    return 1

try:
    ranks.carry_out(make)
except (Ended, LookupError) as error:
    told.append(type(error).__name__)
Path(sys.argv[1], str(ranks.rank)).write_text(json.dumps(told))
leave()
end_now()
"""
    )
    launch([sys.executable, str(program), str(tmp_path)], 2, no_watch)
    for rank, failure in enumerate(["LookupError", "Ended"]):
        told = json.loads((tmp_path / str(rank)).read_text())
        assert told == [["x", "x" * 51], 5, [3.0, 3.0], 6.0, failure]


@pytest.mark.parametrize(
    ("ranks", "error", "waits"),
    [
        (Ranks(), RunLost, False),
        (Ranks(), UserError, False),
        (Ranks(0, 2), RunLost, True),
        (Ranks(0, 2), UserError, False),
        (Ranks(1, 2), UserError, True),
    ],
)
def test_who_waits_with_what_went_wrong(
    ranks: Ranks, error: type[Exception], waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    with pytest.raises(error, match="lost"), said_once(ranks):
        raise error("lost")
    assert bool(waited) == waits


def test_following_a_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    follower = Follower(path, 0)
    assert follower.new() == []
    first, second = (f'{{"event": "end", "time": 0.5, "seconds": {n}}}\n' for n in (1.0, 2.0))
    path.write_text(first + second[:9])
    assert follower.new() == [End(1.0, time=0.5)]
    path.write_text(first + second)
    assert follower.new() == [End(2.0, time=0.5)]
    assert Follower(path, len(first)).new() == [End(2.0, time=0.5)]


# Shares


@given(st.integers(1, 7), st.integers(1, 20), st.integers(0, 9))
def test_shares_cover_a_batch_once(count: int, total: int, place: int) -> None:
    shares = [Share.of(Ranks(rank, count), total, place) for rank in range(count)]
    counted = [row for s in shares if s.weight for row in range(total)[s.rows]]
    assert sorted(counted) == list(range(total))
    assert sum(share.weight for share in shares) == pytest.approx(1)
    sizes = [share.size if share.weight else 0 for share in shares]
    assert max(sizes) - min(sizes) <= 1
    assert all(share.size >= 1 for share in shares)
    values = torch.rand(total, dtype=torch.float64)
    parts = sum(values[share.rows].mean() * share.weight for share in shares)
    assert float(parts) == pytest.approx(float(values.mean()))


def attention(x: Tensor, **options: Any) -> Tensor:
    heads = x.view(len(x), 4, 5, 6)
    return F.scaled_dot_product_attention(heads, heads * 2, heads + 1, dropout_p=0.4, **options)


def grouped(x: Tensor) -> Tensor:
    heads = x.view(len(x), 4, 5, 6)
    pair = heads[:, :2]
    return F.scaled_dot_product_attention(heads, pair, pair, None, 0.4, enable_gqa=True)


def masked(x: Tensor) -> Tensor:
    return attention(x, attn_mask=torch.ones(5, 5, dtype=torch.bool).tril(), scale=0.3)


RANDOM: Mapping[str, Callable[[Tensor], Tensor]] = {
    "dropout": lambda x: F.dropout(x, 0.4),
    "module": torch.nn.Dropout(0.4),
    "flattened": lambda x: F.dropout(x.view(-1, 6), 0.4).view(len(x), -1),
    "attention": attention,
    "causal attention": lambda x: attention(x, is_causal=True),
    "masked attention": masked,
    "grouped attention": grouped,
    "attention without dropout": lambda x: F.scaled_dot_product_attention(x, x, x),
}


@pytest.mark.parametrize("name", RANDOM)
def test_draws_do_not_depend_on_how_a_batch_is_split(name: str) -> None:
    """Each rank gets its rows of what one process computes, and ends in the same random state."""
    function = RANDOM[name]
    batch = torch.rand(5, 20, 6, dtype=torch.float64)
    torch.manual_seed(3)
    whole = function(batch)
    state = torch.get_rng_state()
    for count in (2, 3):
        for rank in range(count):
            share = Share.of(Ranks(rank, count), len(batch), 1)
            torch.manual_seed(3)
            with WholeDraws(share):
                part = function(batch[share.rows])
            torch.testing.assert_close(part, whole[share.rows])
            assert torch.equal(torch.get_rng_state(), state)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
