"""Runs: events, notes, budgets, loops; killed for real and resumed."""

from __future__ import annotations

import hashlib
import json
import random
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from prefixnas.base.errors import UserError
from prefixnas.run.evaluation import Split
from prefixnas.run.events import Other
from prefixnas.run.ledger import BudgetExceeded
from prefixnas.run.recipe import Recipe
from prefixnas.run.run import Budget, Run
from prefixnas.run.search import search
from prefixnas.space.loading import load_space
from prefixnas.strategies.random import RandomSearch
from prefixnas.testing import ToyObjective
from tests import ROOT, forked
from tests.prefixnas.run import killed_run

CLOCK = ("time", "seconds", "began")


def make(folder: Path, **options: Any) -> Run:
    options.setdefault("budget", Budget(10, 5))
    return Run(folder, load_space("default"), ToyObjective(), **options)


def events(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in CLOCK} for line in lines]


def results(folder: Path) -> dict[str, Any]:
    """Everything a run leaves behind, without the clock."""
    result = json.loads((folder / "result.json").read_text())
    result.pop("seconds")
    files = [folder / "architecture.yaml", *sorted((folder / "adapter").iterdir())]
    tensors = sorted((folder / "checkpoint").glob("*.safetensors"))
    return {
        "events": events(folder),
        "result": result,
        **{path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
        "last checkpoint": [hashlib.sha256(path.read_bytes()).hexdigest() for path in tensors],
    }


# Killed for real


@pytest.mark.parametrize("name", sorted(killed_run.STRATEGY))
def test_kill_and_resume_equals_a_whole_run(name: str, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    killed_run.run(whole, name, -1, resume=False)
    expected = results(whole)
    kill_after = random.Random(name).randrange(10, len(expected["events"]) - 2)
    command = ["-m", "tests.prefixnas.run.killed_run", str(broken), name, str(kill_after)]
    done = forked.run(*command, "start", cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    assert not (broken / "result.json").exists()
    killed_run.run(broken, name, -1, resume=True)
    assert results(broken) == expected


def test_resuming_a_finished_run_trains_nothing_and_changes_nothing(tmp_path: Path) -> None:
    def go(resume: bool) -> int:
        run = make(tmp_path, resume=resume)
        calls = 0
        inner = run.objective.backward

        def counted(split: Split = "train") -> dict[str, float]:
            nonlocal calls
            calls += 1
            return inner(split)

        run.objective.backward = counted  # type: ignore[method-assign]
        search(run, RandomSearch(trials=2), Recipe())
        return calls

    assert go(resume=False) > 0
    before = {**results(tmp_path), "raw": (tmp_path / "metrics.jsonl").read_bytes()}
    assert go(resume=True) == 0
    assert {**results(tmp_path), "raw": (tmp_path / "metrics.jsonl").read_bytes()} == before


def test_resume_before_the_first_checkpoint_starts_anew(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").touch()
    run = make(tmp_path, resume=True)
    run.emit(Other("first", {}))
    assert events(tmp_path) == [{"event": "first"}]


def test_a_lost_checkpoint_is_said_and_the_events_stay(tmp_path: Path) -> None:
    make(tmp_path).emit(Other("first", {}))
    (tmp_path / "checkpoint" / "state.json").unlink()
    for _ in range(2):
        with pytest.raises(UserError, match=r"state\.json: missing.*begin again"):
            make(tmp_path, resume=True)
    assert events(tmp_path) == [{"event": "first"}]


def test_going_back_to_the_checkpoint_before_is_said(tmp_path: Path) -> None:
    run = make(tmp_path)
    run.reset(None)
    loop = run.steps("phase", 4)
    for _ in loop:
        pass
    state = tmp_path / "checkpoint" / "state.json"
    state.write_text(state.read_text().replace('"spent": 4', '"spent": 3'))
    resumed = make(tmp_path, resume=True)
    (warning,) = [e for e in events(tmp_path) if e["event"] == "warning"]
    assert "state.json: damaged checkpoint" in warning["message"]
    resumed.reset(None)
    assert list(resumed.steps("phase", 4)) != []


def test_a_new_run_forgets_the_checkpoint_of_an_old_one(tmp_path: Path) -> None:
    make(tmp_path).once("note", lambda: 1)
    make(tmp_path)
    assert make(tmp_path, resume=True).once("note", lambda: 2) == 2


def test_events_that_were_lost_are_said(tmp_path: Path) -> None:
    run = make(tmp_path)
    run.once("note", lambda: run.emit(Other("first", {})))
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match=r"metrics.jsonl: missing or shorter"):
        make(tmp_path, resume=True)


# Notes


def test_a_note_is_taken_once_and_survives(tmp_path: Path) -> None:
    assert make(tmp_path).once("note", lambda: {"a": [1, 2.5]}) == {"a": [1, 2.5]}
    resumed = make(tmp_path, resume=True)
    assert resumed.once("note", lambda: pytest.fail("made twice")) == {"a": [1, 2.5]}


def test_a_note_leaves_the_random_state_alone(tmp_path: Path) -> None:
    run = make(tmp_path)
    state = torch.get_rng_state()
    run.once("note", lambda: torch.rand(3).tolist())
    assert torch.equal(state, torch.get_rng_state())


def test_a_note_leaves_the_tensors_of_the_checkpoint_alone(tmp_path: Path) -> None:
    """The weights have not changed since the last step: writing them again would be wasted."""
    run = make(tmp_path)
    run.reset(None)
    list(run.steps("phase", 2))
    folder = tmp_path / "checkpoint"
    tensors = folder / json.loads((folder / "state.json").read_text())["tensors"]
    before = tensors.stat()
    assert run.once("note", lambda: 1) == 1
    assert (tensors.stat().st_ino, tensors.stat().st_mtime_ns) == (
        before.st_ino,
        before.st_mtime_ns,
    )
    resumed = make(tmp_path, resume=True)
    resumed.once("another", lambda: 2)
    resumed = make(tmp_path, resume=True)
    assert [resumed.once(name, lambda: 3) for name in ("note", "another")] == [1, 2]
    resumed.reset(None)
    assert list(resumed.steps("phase", 2)) == []


def test_a_note_is_plain(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="a note cannot hold a tensor"):
        make(tmp_path).once("note", lambda: torch.ones(2))


def test_names_are_used_once(tmp_path: Path) -> None:
    run = make(tmp_path)
    run.once("note", lambda: 1)
    with pytest.raises(ValueError, match="'note' is asked for twice"):
        run.once("note", lambda: 1)
    run.reset(None)
    assert list(run.steps("phase", 2)) == [0, 1]
    with pytest.raises(ValueError, match="'phase' is entered twice"):
        run.steps("phase", 2)


# Loops and the budget


def test_steps_are_counted_at_their_cost(tmp_path: Path) -> None:
    run = make(tmp_path)
    run.reset(None)
    assert list(run.steps("cheap", 4)) == [0, 1, 2, 3]
    assert run.spent == 4
    assert list(run.steps("dear", 3, cost=2)) == [0, 1, 2]
    assert run.spent == 10
    assert list(run.steps("free", 3, cost=0)) == [0, 1, 2]
    assert run.spent == 10


def test_the_step_beyond_the_budget_is_not_given_out(tmp_path: Path) -> None:
    run = make(tmp_path, budget=Budget(5, 0))
    run.reset(None)
    given = []
    with pytest.raises(BudgetExceeded, match="'greedy' goes beyond the search budget of 5"):
        for step in run.steps("greedy", 9, cost=2):
            given.append(step)
    assert given == [0, 1]


def test_a_loop_can_be_stopped(tmp_path: Path) -> None:
    run = make(tmp_path)
    run.reset(None)
    loop, seen = run.steps("phase", 9), []
    for step in loop:
        seen.append(step)
        if step == 2:
            loop.stop()
    assert seen == [0, 1, 2]
    assert run.spent == 3
    assert list(make(tmp_path, resume=True).steps("phase", 9)) == []


def test_a_loop_goes_on_where_it_was_checkpointed(tmp_path: Path) -> None:
    class Sum:
        value = 0

        def state_dict(self) -> dict[str, int]:
            return {"value": self.value}

        def load_state_dict(self, state: dict[str, int]) -> None:
            self.value = state["value"]

    def go(resume: bool, until: int) -> tuple[list[int], int, float]:
        run, total, seen = make(tmp_path, resume=resume, checkpoint_every=3), Sum(), []
        run.reset(None)
        for step in run.steps("phase", 10, {"sum": total}):
            seen.append(step)
            total.value += step
            drawn = torch.rand(1).item()
            if step == until:
                break
        return seen, total.value, drawn

    _, _, _ = go(False, 7)
    seen, total, drawn = go(True, 99)
    assert seen == [6, 7, 8, 9]
    assert total == sum(range(10))
    torch.manual_seed(0)
    assert drawn == torch.rand(10)[-1].item()


def test_events_are_lines_with_the_time(tmp_path: Path) -> None:
    seen: list[Any] = []
    run = make(tmp_path, on_event=seen.append)
    run.emit(Other("hello", {"number": 1.5, "table": {"a": None}}))
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert [event.to_json() for event in seen] == [record]
    assert record.pop("time") >= 0
    assert record == {"event": "hello", "number": 1.5, "table": {"a": None}}


# Stages


def staged(run: Run, steps: int = 6, price: float = 0.4) -> ToyObjective:
    proxy = ToyObjective(width=4)
    with run.stage("proxy", proxy, steps, price, {"dropout": "dropout(0.3)"}):
        run.reset(None)
        assert list(run.steps("phase", 4)) in ([0, 1, 2, 3], [])
        assert run.spent == 4
        run.evaluate("score", "selection")
    return proxy


def test_a_stage_has_objective_budget_and_names_of_its_own(tmp_path: Path) -> None:
    run = make(tmp_path, settings={"dropout": "dropout(0.1)"})
    whole = run.objective
    run.reset(None)
    assert list(run.steps("phase", 3)) == [0, 1, 2]
    with run.stage("proxy", ToyObjective(width=4), 6, 0.4, {"dropout": "dropout(0.3)"}):
        assert run.objective is not whole
        assert run.budget == Budget(6, 0)
        assert run.settings == {"dropout": "dropout(0.3)"}
        assert run.spent == 0
        run.reset(None)
        assert list(run.steps("phase", 4)) == [0, 1, 2, 3]
        with pytest.raises(BudgetExceeded, match="search budget of 6"):
            list(run.steps("more", 3))
    assert run.objective is whole
    assert run.budget == Budget(10, 5)
    assert run.settings == {"dropout": "dropout(0.1)"}


def test_a_stage_is_paid_by_its_price_rounded_up(tmp_path: Path) -> None:
    run = make(tmp_path)
    run.reset(None)
    list(run.steps("before", 3))
    staged(run)
    assert run.spent == 3 + 2  # 4 * 0.4 = 1.6
    list(run.steps("after", 5))
    with pytest.raises(BudgetExceeded):
        list(run.steps("beyond", 1))


def test_a_stage_that_costs_too_much_is_not_begun(tmp_path: Path) -> None:
    run = make(tmp_path)
    with pytest.raises(BudgetExceeded, match="stage 'dear' goes beyond"):  # noqa: SIM117
        with run.stage("dear", ToyObjective(), 21, 0.5):
            pass
    with run.stage("fair", ToyObjective(), 20, 0.5):
        pass


def test_stages_do_not_nest_and_have_names_of_their_own(tmp_path: Path) -> None:
    run = make(tmp_path)
    staged(run)
    with pytest.raises(ValueError, match="entered twice"):
        staged(run)
    with run.stage("outer", ToyObjective(), 1):  # noqa: SIM117
        with pytest.raises(ValueError, match="within stage"):
            with run.stage("inner", ToyObjective(), 1):
                pass


def test_what_a_stage_spent_survives(tmp_path: Path) -> None:
    run = make(tmp_path)
    staged(run)
    run.reset(None)
    list(run.steps("after", 2))
    resumed = make(tmp_path, resume=True)
    staged(resumed)
    assert resumed.spent == run.spent == 4
    assert list(resumed.steps("after", 2)) == []
