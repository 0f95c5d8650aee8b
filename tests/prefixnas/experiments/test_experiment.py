"""A study's file: mistakes are one line, nothing is written before, and it goes on by its own."""

from __future__ import annotations

import json
import os
from pathlib import Path

import optuna
import pytest

import peml.__main__
from prefixnas.experiments.experiment import load_experiment
from prefixnas.experiments.study_report import _tidy, write_study_report
from prefixnas.experiments.worker import work
from tests.prefixnas.experiments.small import open_small, small


def twice(**opened: object) -> dict[str, object]:
    """Return hyper-parameters of which one opens keys of its own, `clip` beside it."""
    return {"warmup": {"choice": [1, {2: opened}]}, "clip": {"choice": [0.5, 1.0]}}


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
    (
        {"hyperparameters": twice(clip={"uniform": [0.1, 1.0]})},
        ["'clip' stands in 'warmup=2/clip', too"],
    ),
    ({"hyperparameters": twice(clip=0.5)}, ["'clip' stands in 'warmup=2/clip', too"]),
    ({"hyperparameters": twice(steps=30)}, ["'warmup=2/steps' stands in base, too"]),
    ({"hyperparameters": twice(warmup=1)}, ["'warmup=2/warmup' stands in 'warmup', too"]),
    (
        {"hyperparameters": {**twice(decay=0.5), "trials": {"choice": [{2: {"decay": 0.4}}]}}},
        ["'trials=2/decay'", "too"],
    ),
    (
        {"hyperparameters": twice(patience=3), "early_stopping": {"patience": 2}},
        ["'warmup=2/patience'", "early_stopping, too"],
    ),
    ({"objective": {"metric": "avrage"}}, ["metric 'avrage'", "'average'"]),
    ({"objective": {"direction": "up"}}, ["'up'", "maximize"]),
    ({"hyperparameters": {}}, ["without hyperparameters", "6 trials"]),
    ({"hyperparameters": ["clip"]}, ["'hyperparameters'", "a mapping"]),
    ({"hyperparameters": {"clip": {"uniform": [0.1, float("inf")]}}}, ["'clip'", "a number"]),
    ({"hyperparameters": {"clip": {"choice": [0.1, 0.1]}}}, ["'clip'", "0.1", "twice"]),
    ({"trials": 0}, ["'trials'", "at least 1"]),
    ({"workers": 0}, ["'workers'", "at least 1"]),
    ({"nni": {"portt": 1}}, ["'portt'", "'port'"]),
    ({"nni": {"tuner": {"TPE": 3}}}, ["nni: tuner", "NAME: {OPTION: VALUE}"]),
    (
        {"sampler": {"partial-fixed": {"base_sampler": 5, "fixed_params": {}}}},
        ["sampler: expected a name", "NAME: {OPTION: VALUE}"],
    ),
    (
        {"sampler": {"partial-fixed": {"base_sampler": "random", "fixed_params": 5}}},
        ["sampler 'partial-fixed'"],
    ),
    (
        {"pruner": {"patient": {"wrapped_pruner": 5, "patience": 3}}},
        ["pruner 'patient': pruner: expected a name"],
    ),
    ({"nni": {"tuner": "TPEE"}}, ["tuner 'TPEE'", "'TPE'"]),
    ({"trails": 3}, ["'trails'", "'trials'"]),
    ({"base__strategy": "tpee"}, ["strategy 'tpee'", "'tpe'"]),
    ({"base__stesp": 3}, ["'stesp'", "'steps'"]),
    ({"name": "a/b"}, ["'name'", "'a/b'"]),
    ({"storage": "postgresql://u:secret@127.0.0.1:1/x"}, ["storage", "postgresql"]),
    ({"storage": "postgresql://127.0.0.1:1/x?user=u&password=a;secret"}, ["user=u&password=***"]),
    ({"storage": "mysql+nosuch://127.0.0.1:1/x?PASSWD=secret&a=b"}, ["PASSWD=***&a=b"]),
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


def test_a_password_that_an_earlier_version_kept_does_not_end_its_study(tmp_path: Path) -> None:
    url = "postgresql://127.0.0.1/studies?user=me&password=secret"
    experiment = load_experiment(small(tmp_path / "small.yaml", storage=url))
    assert "secret" not in json.dumps(experiment.shown())
    kept = {**json.loads(json.dumps(experiment.shown())), "storage": url}
    experiment.refuse_change(kept, "studies/small")


def test_a_trial_is_as_long_as_the_longest(tmp_path: Path) -> None:
    keys = {"steps": {"int": [20, 1000]}, "processes": {"choice": [1, 2]}}
    changes = {"base__steps": None, "base__eval_every": 10, "pruner": "hyperband"}
    study = open_small(tmp_path, hyperparameters=keys, **changes)
    assert study.experiment.epochs() == 100 and study.experiment.processes() == 2
    assert study.optuna.pruner._max_resource == 100


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
    assert peml.__main__.main(["tune", str(file), "--out", str(tmp_path), "--resume"]) == 2
    assert "is not empty" in capsys.readouterr().err
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
