"""Studies: trials are handed out, taken up again, kept, and proposed by their numbers."""

from __future__ import annotations

import errno
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import optuna
import pytest

import prefixnas.__main__
from prefixnas.base.errors import RunLost, UserError
from prefixnas.base.locks import Lock, try_lock
from prefixnas.experiments import claim as claims
from prefixnas.experiments import study as studies
from prefixnas.experiments.rows import COMPLETE, ERROR, FAIL, RUNNING
from prefixnas.experiments.trial import (
    TrialResult,
)
from prefixnas.experiments.worker import work
from tests.prefixnas.experiments.small import open_small


def test_a_failed_trial_is_kept_and_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = {"tabular_steps": {"choice": [0, 7]}}
    study = open_small(
        tmp_path, hyperparameters=keys, sampler="brute-force", trials=2, base__steps=20
    )
    work(study)
    rows = study.rows()
    states = {row.params["tabular_steps"]: row.state for row in rows}
    assert states == {0: COMPLETE, 7: FAIL}, rows
    assert all("not 7" in row.notes[ERROR] for row in rows if row.state == FAIL)
    file, out = str(tmp_path / "small.yaml"), str(study.folder)
    assert prefixnas.__main__.main(["tune", file, "--out", out, "--resume"]) == 1
    assert capsys.readouterr().err.count("failed: trial ") == 1


def test_a_trial_that_is_let_go_is_taken_up_again_with_its_parameters(tmp_path: Path) -> None:
    study = open_small(tmp_path)
    first, second = study.claim(), study.claim()
    assert first is not None and second is not None
    assert (first.number, second.number) == (0, 1)
    params, folder = first.params, first.folder
    first.close()
    again = study.claim()
    assert again is not None
    assert (again.number, again.params, again.folder) == (0, params, folder)
    third = study.claim()
    assert third is not None and third.number == 2


@pytest.mark.parametrize("proposals", [1, 2, 3])
@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_trial_that_was_lost_between_two_proposals_gets_the_second_as_ever(
    sampler: str, proposals: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """Stands for the end of the process, with which its locks end."""

    whole = open_small(tmp_path / "whole", sampler=sampler).claim()
    suggest, left, locks = claims.suggest, proposals, ExitStack()

    def killing(trial: optuna.Trial, parameter: Any) -> Any:
        nonlocal left
        if not left:
            raise Killed
        left -= 1
        return suggest(trial, parameter)

    def taking(path: Path) -> Lock | None:
        lock = try_lock(path)
        return locks.enter_context(lock) if lock is not None else None

    study = open_small(tmp_path, sampler=sampler)
    with monkeypatch.context() as patched, locks, pytest.raises(Killed):
        patched.setattr(claims, "suggest", killing)
        patched.setattr(studies, "try_lock", taking)
        study.claim()
    assert len(study.row(0).params) == proposals
    claim = open_small(tmp_path, sampler=sampler).claim()
    assert whole is not None and claim is not None
    assert (claim.number, claim.params) == (0, whole.params)


def test_a_trial_whose_process_dies_again_and_again_has_failed(tmp_path: Path) -> None:
    study = open_small(tmp_path)
    for _ in range(3):
        claim = study.claim()
        assert claim is not None and claim.number == 0
        process = study.rows()[0].notes["process"]
        claim.close()
        study.crashed(process, "ended by SIGKILL", 3)
    row = study.rows()[0]
    assert row.state == FAIL and "SIGKILL" in row.notes[ERROR]


@pytest.mark.parametrize(("times", "state"), [(2, COMPLETE), (3, FAIL)])
def test_a_trial_of_several_processes_that_loses_one_is_taken_up_again(
    times: int, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [RunLost("process 1 of 2 ended by SIGKILL; the last checkpoint stays")] * times

    def run(*args: Any, **options: Any) -> TrialResult:
        if left:
            raise left.pop()
        return TrialResult(0.5, 0.5, [0.5], 5)

    monkeypatch.setattr("prefixnas.experiments.worker.run_trial", run)
    study = open_small(tmp_path, trials=1)
    work(study)
    row = study.rows()[0]
    assert (row.state, row.notes["crashes"]) == (state, times)
    if state == FAIL:
        assert row.notes[ERROR] == "its process died 3 times: process 1 of 2 ended by SIGKILL"


@pytest.mark.parametrize("told", [False, True])
def test_a_full_disk_ends_no_trial(
    told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")

    def run(*args: Any, **options: Any) -> TrialResult:
        if not told:
            raise full
        raise UserError("plots: cannot be written: No space left on device") from full

    study = open_small(tmp_path, trials=1, base__steps=20)
    with monkeypatch.context() as patch, pytest.raises(UserError, match=r"No space.*--resume"):
        patch.setattr("prefixnas.experiments.worker.run_trial", run)
        work(study)
    assert study.rows()[0].state == RUNNING
    work(study)
    assert study.rows()[0].state == COMPLETE


@pytest.mark.parametrize("changes", [{}, {"storage": "study.db"}], ids=["journal", "database"])
def test_a_trial_that_ends_while_another_process_looks_at_it_is_over(
    changes: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {key: str(tmp_path / value) for key, value in changes.items()}
    study, other = (open_small(tmp_path, trials=1, **changes) for _ in range(2))
    claim = study.claim()
    assert claim is not None
    seen = other.rows()
    claim.finish(TrialResult(0.5, 0.5, [0.5], 5))
    monkeypatch.setattr(other, "rows", lambda: seen)
    assert other.claim() is None
    monkeypatch.undo()
    assert [row.state for row in other.rows()] == [COMPLETE]
    assert other.claim() is None


def test_a_half_written_line_of_the_journal_is_cut_off(tmp_path: Path) -> None:
    study = open_small(tmp_path)
    claim = study.claim()
    assert claim is not None
    params = claim.params
    journal = tmp_path / "study" / "study.journal"
    with journal.open("ab") as file:
        file.write(b'{"op_code":8,"worker')
    again = open_small(tmp_path)
    assert again.rows()[0].params == params
    again.optuna.set_user_attr("written", "after it")
    assert open_small(tmp_path).optuna.user_attrs["written"] == "after it"


def test_more_trials_may_be_asked_for_later(tmp_path: Path) -> None:
    work(open_small(tmp_path, trials=1, base__steps=20))
    study = open_small(tmp_path, trials=2, base__steps=20)
    before = study.rows()[:1]
    work(study)
    assert [row.state for row in study.rows()] == [COMPLETE] * 2
    assert study.rows()[:1] == before


def test_a_database_holds_the_same(tmp_path: Path) -> None:
    one = open_small(tmp_path / "a")
    other = open_small(tmp_path / "b", storage=str(tmp_path / "study.db"))
    for study in (one, other):
        claim = study.claim()
        assert claim is not None
        claim.report(1, 0.25)
        claim.close()
    again = open_small(tmp_path / "b", storage=str(tmp_path / "study.db"))
    claim = again.claim()
    assert claim is not None and claim.number == 0
    assert one.rows()[0].params == again.rows()[0].params == claim.params
    assert one.rows()[0].epochs == again.rows()[0].epochs == {1: 0.25}


def test_samplers_propose_by_the_trials_number(tmp_path: Path) -> None:
    one, other = (open_small(tmp_path / name, sampler="tpe") for name in "ab")
    first, again = ([study.claim() for _ in range(3)] for study in (one, other))
    params = [claim.params for claim in first if claim]
    assert len({json.dumps(each) for each in params}) == 3
    assert params == [claim.params for claim in again if claim]


def test_a_study_goes_on_with_the_spaces_that_it_began_with(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    text = "name: mine\nstack: {layers: 2, cell: [linear, {choice: {key: a, options: [tanh]}}]}\n"
    file.write_text(text)
    keys = {"space": {"choice": ["tabular", str(file)]}}
    open_small(tmp_path, hyperparameters=keys, base__space=None)
    open_small(tmp_path, hyperparameters=keys, base__space=None)
    file.write_text(text.replace("tanh", "tanh, relu"))
    with pytest.raises(UserError, match=r"cannot go on: the space '.*mine.yaml' is not what"):
        open_small(tmp_path, hyperparameters=keys, base__space=None)
