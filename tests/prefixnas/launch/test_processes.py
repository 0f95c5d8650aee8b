"""Several processes of one run: started, watched, ended together, and what they tell each other."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from prefixnas.base.errors import RunLost, UserError
from prefixnas.launch.processes import launch
from prefixnas.launch.together import Follower
from prefixnas.run.events import End
from prefixnas.run.ranks import Ranks, check_devices, said_once


def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    check_devices(1)
    with pytest.raises(UserError, match="2 processes need a GPU each, and there are 1"):
        launch(["true"], 2, lambda: None)


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
