from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import optuna
import pytest

import peml.__main__
import prefixnas.__main__
from prefixnas.base.errors import RunLost, UserError
from prefixnas.base.locks import Lock, try_lock
from prefixnas.experiments import claim as claims
from prefixnas.experiments import study as studies
from prefixnas.experiments.experiment import load_experiment
from prefixnas.experiments.nni import trial_process
from prefixnas.experiments.nni.client import Channel
from prefixnas.experiments.nni.space import pack
from prefixnas.experiments.rows import COMPLETE, ERROR, FAIL, PRUNED, RUNNING, STEPS
from prefixnas.experiments.study import Study
from prefixnas.experiments.study_report import _tidy, write_study_report
from prefixnas.experiments.trial import (
    Busy,
    Pruned,
    TrialResult,
    held,
    run_trial,
    trial_folder,
)
from prefixnas.experiments.worker import work
from tests.prefixnas.experiments.small import small
from tests.workbench import events


def open_small(folder: Path, **changes: object) -> Study:
    return Study.open(load_experiment(small(folder / "small.yaml", **changes)), folder / "study")


def ignore(epoch: int, score: float) -> None:
    """Take a report."""


def test_a_trial_scores_as_a_plain_search_does(tmp_path: Path) -> None:
    study = open_small(tmp_path)
    claim = study.claim()
    assert claim is not None
    result = run_trial(claim.config(), claim.report, claim.folder)
    claim.finish(result)
    config = claim.folder / "config.yaml"
    out = tmp_path / "plain"
    assert prefixnas.__main__.main(["search", "--config", str(config), "--out", str(out)]) == 0
    plain = json.loads((out / "result.json").read_text())
    assert plain["selection"]["score"] == result.score == study.rows()[0].score
    assert plain["columns"]["trained child"]["score"] == result.validation
    assert plain["architecture"] == result.architecture


def test_a_trial_under_nni_is_that_of_tune(tmp_path: Path) -> None:
    class Manager:
        """Hands the values out and keeps what is reported, as NNI does."""

        def __init__(self) -> None:
            self.told: list[Any] = []

        def parameters(self) -> dict[str, Any]:
            return {"trial": 0, **pack(study.experiment.hyperparameters, claim.params)}

        def intermediate(self, value: Mapping[str, Any]) -> None:
            self.told.append(value["default"])

        def final(self, value: Mapping[str, Any]) -> None:
            self.told.append(value["default"])

    study = open_small(tmp_path)
    claim = study.claim()
    assert claim is not None
    claim.finish(run_trial(claim.config(), claim.report, claim.folder))
    settings = {
        **study.experiment.order(),
        "folder": str(tmp_path / "nni"),
        "gpus": None,
        "run": "prefixnas.experiments.trial:run_trial",
    }
    manager = Manager()
    trial_process.run(settings, cast(Channel, manager))
    row, folder = study.rows()[0], trial_folder(tmp_path / "nni", 0)
    assert manager.told == [*row.epochs.values(), row.score]
    for name in ("config.yaml", "architecture.yaml", "trial.json"):
        assert (folder / name).read_text() == (claim.folder / name).read_text()


def test_epochs_are_reported_from_the_search_on(tmp_path: Path) -> None:
    told: list[tuple[int, float]] = []
    base = {"strategy": "darts", "steps": 40, "search_fraction": 0.5, "eval_every": 5}
    keys = {"alpha_learning_rate": {"loguniform": [0.01, 0.1]}}
    study = open_small(tmp_path, base={**TOY, **base}, hyperparameters=keys)
    claim = study.claim()
    assert claim is not None
    result = run_trial(claim.config(), lambda *report: told.append(report), claim.folder)
    assert [epoch for epoch, _ in told] == list(range(1, 9))
    assert [score for _, score in told] == result.epochs
    phases = [event["phase"] for event in events(claim.folder, "epoch")]
    assert phases == ["search"] * 4 + ["train"] * 4
    assert result.score == max(result.epochs[4:]) and result.steps == 40
    again: list[tuple[int, float]] = []
    assert run_trial(claim.config(), lambda *r: again.append(r), claim.folder) == result
    assert again == told


def test_patience_ends_a_trial_early(tmp_path: Path) -> None:
    base = {"strategy": "fixed", "steps": 60, "eval_every": 2, "search_fraction": 0.0}
    study = open_small(
        tmp_path,
        base={**TOY, **base},
        hyperparameters={"clip": {"uniform": [1e-9, 2e-9]}},
        early_stopping={"patience": 3},
    )
    claim = study.claim()
    assert claim is not None
    result = run_trial(claim.config(), ignore, claim.folder)
    assert len(result.epochs) < 30
    assert max(result.epochs[:-3]) >= max(result.epochs[-3:])


def test_a_pruned_trial_ends_at_once_and_stays_pruned(tmp_path: Path) -> None:
    study = open_small(tmp_path, pruner={"threshold": {"lower": 0.0}}, trials=2)
    work(study)
    rows = study.rows()
    assert [row.state for row in rows] == [PRUNED, PRUNED]
    assert all(len(row.epochs) == 1 and row.notes[STEPS] == 5 for row in rows)
    folder = study.trial_folder(0)
    assert not (folder / "result.json").exists()
    assert study.claim() is None

    def refuse(epoch: int, score: float) -> None:
        raise Pruned

    assert run_trial(rows[0].params, refuse, folder).pruned


def test_a_failed_trial_is_kept_and_stops_nothing(tmp_path: Path) -> None:
    keys = {"tabular_steps": {"choice": [0, 7]}}
    study = open_small(
        tmp_path, hyperparameters=keys, sampler="brute-force", trials=2, base__steps=20
    )
    work(study)
    rows = study.rows()
    states = {row.params["tabular_steps"]: row.state for row in rows}
    assert states == {0: COMPLETE, 7: FAIL}, rows
    assert all("not 7" in row.notes[ERROR] for row in rows if row.state == FAIL)


def test_a_trial_is_run_by_one_process_alone(tmp_path: Path) -> None:
    study = open_small(tmp_path)
    claim = study.claim()
    assert claim is not None
    with held(claim.folder), pytest.raises(Busy, match="another process"):
        run_trial(claim.config(), claim.report, claim.folder)


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


TOY = {"objective": "tabular", "space": "tabular", "checkpoint_every": 4}

BAD: list[tuple[dict[str, object], list[str]]] = [
    ({"sampler": "tpee"}, ["unknown sampler 'tpee'", "'tpe'"]),
    ({"sampler": {"tpe": {"n_startup": 3}}}, ["'n_startup'", "'n_startup_trials'"]),
    ({"sampler": "brute-force"}, ["sampler 'brute-force'", "step"]),
    ({"pruner": {"hyperband": {"reduction_factor": 0}}}, ["pruner 'hyperband'"]),
    ({"pruner": "medain"}, ["unknown pruner 'medain'", "'median'"]),
    ({"pruner": {"percentile": {}}}, ["'percentile'", "missing"]),
    ({"pruner": {"percentile": {"percentile": 200.0}}}, ["'percentile'", "between 0 and 100"]),
    ({"pruner": "median", "base__eval_every": None}, ["pruner", "'eval_every'"]),
    ({"early_stopping": {"patience": 0}}, ["patience", "at least 1"]),
    ({"early_stopping": {"patienc": 2}}, ["'patienc'", "'patience'"]),
    ({"early_stopping": {"patience": 3}, "base__eval_every": None}, ["'eval_every'"]),
    ({"hyperparameters": {"strtup": {"int": [1, 2]}}}, ["'strtup'", "'startup'"]),
    ({"hyperparameters": {"clip": {"uniform": [1.0, 0.1]}}}, ["'clip'", "1.0", "not below", "0.1"]),
    ({"hyperparameters": {"clip": {"loguniform": [0.0, 0.1]}}}, ["'clip'", "above 0"]),
    ({"hyperparameters": {"clip": {"unifrom": [0.0, 0.1]}}}, ["'unifrom'", "'uniform'"]),
    ({"hyperparameters": {"clip": {"uniform": [0.1]}}}, ["'clip'", "two bounds"]),
    ({"hyperparameters": {"clip": 3}}, ["'clip'", "not 3"]),
    ({"hyperparameters": {"clip": {"choice": []}}}, ["'clip'", "no options"]),
    ({"hyperparameters": {"startup": {"uniform": [1, 3]}}}, ["'startup'", "whole numbers"]),
    ({"hyperparameters": {"startup": {"int": [0, 3]}}}, ["'startup'", "at least 1", "0"]),
    ({"hyperparameters": {"weights": {"int": [0, 3]}}}, ["'weights'", "no numbers"]),
    ({"hyperparameters": {"steps": {"int": [9, 30]}}}, ["'steps'", "base"]),
    ({"hyperparameters": {"warmup": {"choice": [1, {2: {"deca": 0.5}}]}}}, ["'deca'", "'decay'"]),
    ({"objective": {"metric": "avrage"}}, ["metric 'avrage'", "'average'"]),
    ({"objective": {"direction": "up"}}, ["'up'", "maximize"]),
    ({"hyperparameters": {}}, ["without hyperparameters", "6 trials"]),
    ({"hyperparameters": ["clip"]}, ["'hyperparameters'", "a mapping"]),
    ({"hyperparameters": {"clip": {"uniform": [0.1, float("inf")]}}}, ["'clip'", "a number"]),
    ({"hyperparameters": {"clip": {"choice": [0.1, 0.1]}}}, ["'clip'", "0.1", "twice"]),
    ({"trials": 0}, ["'trials'", "at least 1"]),
    ({"workers": 0}, ["'workers'", "at least 1"]),
    ({"nni": {"portt": 1}}, ["'portt'", "'port'"]),
    ({"nni": {"tuner": "TPEE"}}, ["tuner 'TPEE'", "'TPE'"]),
    ({"trails": 3}, ["'trails'", "'trials'"]),
    ({"base__strategy": "tpee"}, ["strategy 'tpee'", "'tpe'"]),
    ({"base__stesp": 3}, ["'stesp'", "'steps'"]),
    ({"name": "a/b"}, ["'name'", "'a/b'"]),
    ({"storage": "postgresql://u:secret@127.0.0.1:1/x"}, ["storage", "postgresql"]),
    ({"storage": "postgresql://u:the@secret@127.0.0.1:1/x"}, ["storage", "postgresql"]),
    ({"storage": "oracle://u:secret@127.0.0.1:1/x"}, ["package is missing: ", "oracle"]),
    ({"storage": "nonsense://x"}, ["storage nonsense://x", "no such kind", "'nonsense'"]),
    ({"storage": ""}, ["storage ''", "not a file"]),
    ({"storage": "/"}, ["storage /", "not a file"]),
    ({"storage": "/proc/none/study.db"}, ["/proc/none/study.db"]),
    ({"storage": "/proc/none.journal"}, ["/proc/none.journal"]),
]


@pytest.mark.parametrize(("changes", "said"), BAD, ids=[str(changes) for changes, _ in BAD])
def test_a_mistake_is_one_line_before_anything_is_written(
    changes: dict[str, object],
    said: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "objective" in changes:  # found by building the problem, in a process of its own
        changes = {**changes, "trials": 1}
    file, out = small(tmp_path / "small.yaml", **changes), tmp_path / "study"
    assert peml.__main__.main(["tune", str(file), "--out", str(out)]) == 2
    said_out, error = capsys.readouterr()
    assert error.startswith("error: ") and error.count("\n") == 1 and not said_out
    assert all(words in error for words in said), error
    assert "secret" not in error and "Traceback" not in error
    assert not out.exists()


def test_what_is_there_already_is_no_storage_and_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "text").write_text("[]\n")
    for name, said in (("pipe", "not a file"), ("text", "not the journal of a study")):
        file = small(tmp_path / "small.yaml", storage=str(tmp_path / name))
        assert peml.__main__.main(["tune", str(file), "--out", str(tmp_path / "study")]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
    assert (tmp_path / "pipe").is_fifo() and (tmp_path / "text").read_text() == "[]\n"


def test_a_password_is_neither_printed_nor_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "postgresql://me:secret@127.0.0.1/studies"
    memory = optuna.storages.InMemoryStorage()
    monkeypatch.setattr("prefixnas.experiments.study.open_storage", lambda *_: memory)
    study = open_small(tmp_path, storage=url)
    write_study_report(study)
    assert peml.__main__.main(["tune", str(tmp_path / "small.yaml"), "--dry-run"]) == 0
    said = capsys.readouterr().out + json.dumps(study.optuna.user_attrs)
    texts = [path.read_text() for path in study.folder.rglob("*") if path.is_file()]
    assert "me:***@127.0.0.1" in said and "report" in "".join(map(str, study.folder.iterdir()))
    assert not any("secret" in text for text in [said, *texts])
    open_small(tmp_path, storage=url.replace("secret", "changed"))


def test_a_study_goes_on_with_its_own_file_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = open_small(tmp_path, trials=1, base__steps=20)
    work(study)
    before = study.rows()
    file, out = tmp_path / "small.yaml", str(study.folder)
    assert peml.__main__.main(["tune", str(file), "--out", out]) == 2
    assert "--resume" in capsys.readouterr().err
    small(file, trials=1, base__steps=22)
    assert peml.__main__.main(["tune", str(file), "--out", out, "--resume"]) == 2
    error = capsys.readouterr().err
    assert "'base.steps' was 20 and is now 22" in error and error.count("\n") == 1
    assert peml.__main__.main(["tune", str(file), "--out", str(tmp_path / "new"), "--resume"]) == 2
    assert "no study" in capsys.readouterr().err
    assert open_small(tmp_path, trials=1, base__steps=20).rows() == before


def test_a_dry_run_prints_a_file_that_says_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = small(tmp_path / "small.yaml", early_stopping={"patience": 2}, pruner="hyperband")
    assert peml.__main__.main(["tune", str(file), "--dry-run", "--trials", "9"]) == 0
    printed = capsys.readouterr().out
    (tmp_path / "printed.yaml").write_text(printed)
    assert peml.__main__.main(["tune", str(tmp_path / "printed.yaml"), "--dry-run"]) == 0
    assert capsys.readouterr().out == printed
    assert "9 trials, 1 side by side, of at most 60 steps and 12 epochs" in printed
    assert "540 steps and 108 epochs' evaluations" in printed
    assert load_experiment(tmp_path / "printed.yaml").trials == 9
    assert not (tmp_path / "studies").exists()


def test_patience_ends_a_search_too(tmp_path: Path) -> None:
    base = {"strategy": "darts", "steps": 60, "eval_every": 2, "alpha_learning_rate": 1e-9}
    study = open_small(
        tmp_path,
        base={**TOY, **base},
        hyperparameters={"clip": {"uniform": [1e-9, 2e-9]}},
        early_stopping={"patience": 3},
    )
    claim = study.claim()
    assert claim is not None
    result = run_trial(claim.config(), ignore, claim.folder)
    stops = events(claim.folder, "stop")
    assert [stop["reason"] for stop in stops] == ["no better score in 3 epochs"]
    searched = [event for event in events(claim.folder, "epoch") if event["phase"] == "search"]
    assert 4 <= len(searched) < 15 and result.steps < 60


def test_plots_of_a_study_speak_our_words_and_count_in_whole_numbers() -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.subplots()
    for number in range(2):
        axes.plot([1, 2], [0.5, 0.6], label=f"Trial{number}")
    axes.set(xlabel="Step", ylabel="Intermediate Value", title="Intermediate Values Plot")
    axes.legend()
    _tidy(figure)
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("epoch", "score", "")
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["trial 0", "trial 1"]
    assert all(float(place).is_integer() for place in axes.get_xticks())
