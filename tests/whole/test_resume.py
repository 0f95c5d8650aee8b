"""A run that was killed goes on to the same result as an uninterrupted one, byte for byte."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from prefixnas.run.evaluation import BASELINE, EQUAL_WEIGHTS
from prefixnas.run.event_file import read_events
from prefixnas.run.events import Event, Step
from tests.forked import SERVER, Forked
from tests.workbench import digest, events

SEARCH, TRAIN = "search", "train"


def arguments(bench: Path, run: Path, family: str, *more: str) -> list[str]:
    argv = ["search", "--model", str(bench / family), "--tasks", str(bench / "mood")]
    argv += [str(bench / "order"), "--steps", "16", "--prefix-length", "3", "--lora-rank", "2"]
    argv += ["--batch-size", "4", "--checkpoint-every", "3", "--eval-every", "2", *more]
    return [*argv, "--log-every", "1", "--out", str(run)]


def is_step(event: Event, phase: str, step: int) -> bool:
    return isinstance(event, Step) and (event.phase, event.step) == (phase, step)


def _child(argv: Sequence[str], at: tuple[str, int] | None, in_checkpoint: bool) -> None:
    import torch

    import prefixnas.report.run_page
    import prefixnas.run.checkpoint
    from prefixnas.__main__ import main
    from prefixnas.run.run import Run

    torch.set_num_threads(1)
    emit = Run.emit

    def kill(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def emit_and_die(run: Run, event: Event) -> None:
        emit(run, event)
        if at is not None and is_step(event, *at):
            if in_checkpoint:  # the tensors are there, the file that names them is not
                prefixnas.run.checkpoint.write_text = kill
            else:
                kill()

    Run.emit = emit_and_die  # type: ignore[method-assign]
    prefixnas.report.run_page.write_report = lambda *_: (
        Path()
    )  # plots take longer than all the rest
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):  # noqa: PTH123
        code = main(argv)
    os._exit(code)


def start(
    argv: Sequence[str], at: tuple[str, int] | None = None, in_checkpoint: bool = False
) -> int | None:
    """Run a command in a process of its own, which kills itself after a step if told to."""
    process = SERVER.Process(target=_child, args=(list(argv), at, in_checkpoint))
    process.start()
    process.join(120)
    return process.exitcode


def same(killed: Path, whole: Path) -> None:
    """Check that two runs ended alike, times apart."""
    assert "peml.json" in digest(whole / "adapter")
    assert digest(killed / "adapter") == digest(whole / "adapter")
    architecture = (killed / "architecture.yaml").read_bytes()
    assert architecture == (whole / "architecture.yaml").read_bytes()
    assert events(killed) == events(whole)
    results = [json.loads((run / "result.json").read_text()) for run in (killed, whole)]
    for result in results:
        del result["seconds"]
    assert results[0] == results[1]


Whole = Callable[..., Path]


@pytest.fixture(scope="module")
def whole(bench: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Uninterrupted runs, by model and further arguments; each is made once."""
    made: dict[tuple[str, ...], Path] = {}

    def make(family: str, *more: str) -> Path:
        if (family, *more) not in made:
            run = tmp_path_factory.mktemp("whole") / "run"
            assert start(arguments(bench, run, family, *more)) == 0
            made[family, *more] = run
        return made[family, *more]

    return make


def kill_and_resume(
    argv: Sequence[str], run: Path, kills: Sequence[tuple[str, int]], in_checkpoint: bool = False
) -> None:
    for at in kills:  # by one and the same command, which begins what was not begun
        assert start([*argv, "--resume"], at, in_checkpoint) == -signal.SIGKILL
        assert not (run / "result.json").exists()
        if not in_checkpoint:
            assert is_step(read_events(run)[-1], *at)
    assert start(["search", "--resume", "--out", str(run)]) == 0


@pytest.mark.parametrize(
    "kills",
    [
        [(SEARCH, 5)],
        [(TRAIN, 4)],
        [(SEARCH, 0), (SEARCH, 7), (TRAIN, 0), (TRAIN, 7)],
        [(SEARCH, 4), (SEARCH, 6), (TRAIN, 2), (BASELINE, 15)],
        [(BASELINE, 3), (EQUAL_WEIGHTS, 0), (EQUAL_WEIGHTS, 7), (EQUAL_WEIGHTS, 15)],
    ],
    ids=str,
)
def test_a_killed_run_ends_like_a_whole_one(
    kills: list[tuple[str, int]], bench: Path, whole: Whole, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    kill_and_resume(arguments(bench, run, "llama"), run, kills)
    same(run, whole("llama"))


@pytest.mark.parametrize("at", [(SEARCH, 4), (TRAIN, 4)], ids=str)
def test_a_kill_while_a_checkpoint_is_written(
    at: tuple[str, int], bench: Path, whole: Whole, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    kill_and_resume(arguments(bench, run, "llama"), run, [at], in_checkpoint=True)
    same(run, whole("llama"))


@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("bert", ["--sampling", "temperature", "--patience", "1"]),
        ("bert", ["--lora", "adalora", "--prefix-attention", "concat"]),
        (
            "t5",
            ["--level", "bilevel", "--relaxation", "gumbel-hard", "--prefix-attention", "concat"],
        ),
        ("llama", ["--prefix-attention", "concat", "--patience", "1"]),
        ("llama", ["--optimizer", "adafactor", "--schedule", "cosine_with_restarts"]),
        ("llama", ["--lora", "adalora", "--prune-below", "0.25", "--alpha-warmup", "0"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_every_kind_of_run_resumes(
    family: str, more: list[str], bench: Path, whole: Whole, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    search_steps = len([e for e in events(whole(family, *more), "step") if e["phase"] == SEARCH])
    kills = [(SEARCH, search_steps // 2 + 1), (TRAIN, 1)]
    kill_and_resume(arguments(bench, run, family, *more), run, kills)
    same(run, whole(family, *more))


KINDS = """
name: kinds
knobs: [{choice: {key: attention, options: [concat, parallel], decided_by: trial}}]
seq: [linear]
"""


@pytest.mark.parametrize(
    ("order", "kills"),
    [
        ("lora-first", [("apart", 4), (SEARCH, 2), (TRAIN, 2)]),
        ("prefix-first", [(SEARCH, 2), (TRAIN, 1), ("apart", 5)]),
    ],
)
def test_a_run_of_parts_in_turn_resumes(
    order: str, kills: list[tuple[str, int]], bench: Path, whole: Whole, tmp_path: Path
) -> None:
    """In either phase, with heads and epochs: what is held comes out of the checkpoint."""
    more, run = ["--order", order, "--baseline", "lora"], tmp_path / "run"
    kill_and_resume(arguments(bench, run, "bert", *more), run, [*kills, (BASELINE, 9)])
    same(run, whole("bert", *more))


def test_random_search_resumes(bench: Path, tmp_path: Path) -> None:
    """In the second of two trials, whose prefixes are read in different ways, and in training."""
    (tmp_path / "kinds.yaml").write_text(KINDS)
    more = ["--strategy", "random", "--trials", "2", "--space", str(tmp_path / "kinds.yaml")]

    def argv(run: Path) -> list[str]:
        return [x for x in arguments(bench, run, "llama", *more) if x not in ("--log-every", "1")]

    kept, run = tmp_path / "whole", tmp_path / "run"
    assert start(argv(kept)) == 0
    kill_and_resume(argv(run), run, [("trial 1", 1), (TRAIN, 3)])
    same(run, kept)
    tried = [event["choices"] for event in events(run, "trial")]
    assert sorted(choices["attention"] for choices in tried) == ["concat", "parallel"]


def test_a_kill_from_outside(bench: Path, whole: Whole, tmp_path: Path) -> None:
    """The same through the console script, killed when the file of events says so."""
    run, said = tmp_path / "run", tmp_path / "said"
    longer = ["--steps", "60", "--eval-every", "0"]
    process = Forked(["-m", "prefixnas", *arguments(bench, run, "llama", *longer)], said)
    metrics = run / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (metrics.is_file() and '"phase": "search", "step": 7' in metrics.read_text()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert f'"phase": "{TRAIN}"' not in metrics.read_text()
    resumed = Forked(["-m", "prefixnas", "search", "--resume", "--out", str(run)], said)
    assert resumed.wait() == 0, said.read_text()
    same(run, whole("llama", *longer))
