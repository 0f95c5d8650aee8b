"""`prefixnas experiment` as far as it needs no NNI: mistakes, status, export."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import prefixnas.__main__
from prefixnas.commands.experiment import _finish
from prefixnas.commands.output import Output
from prefixnas.experiments.nni.processes import MARK
from prefixnas.experiments.nni.study_server import StudyServer
from prefixnas.experiments.nni.table import _record
from prefixnas.experiments.rows import COMPLETE, Row
from prefixnas.experiments.study import Study
from tests.prefixnas.experiments.nni.study import EXPERIMENT, carry_out

pytestmark = pytest.mark.usefixtures("no_workers")


@pytest.mark.parametrize(
    ("nni", "flags", "message"),
    [
        ({"tuner": "Randon"}, [], "unknown tuner 'Randon': did you mean 'Random'?"),
        ({}, ["--tuner", "tpe"], "unknown tuner 'tpe'"),
        ({"concurency": 2}, [], "unknown key 'concurency': did you mean 'concurrency'?"),
        ({"port": 99999}, [], "key 'port': must be"),
        ({"concurrency": 0}, [], "key 'concurrency': must be"),
        ({"config": {"search_space": {}}}, [], "'search_space' is made from the experiment"),
        (
            {"config": {"training_service": {"platform": "local", "trial_gpu_number": 1}}},
            [],
            "use gpus_per_trial",
        ),
        ({"config": {"training_service": {"platform": "remote"}}}, [], "needs worker_python"),
        (
            {"config": {"training_service": {"platform": "remot"}}},
            [],
            "unknown training service 'remot': did you mean 'remote'?",
        ),
        ({}, ["--nni-python", "nowhere/python"], "cannot be run as a Python"),
        ({}, ["--prot", "1"], "unknown argument '--prot': did you mean '--port'?"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    nni: dict[str, Any],
    flags: list[str],
    message: str,
) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump({**EXPERIMENT, "nni": nni}))
    out = tmp_path / "out"
    code = prefixnas.__main__.main(["experiment", "start", str(path), "--out", str(out), *flags])
    error = capsys.readouterr().err
    assert code == 2 and error.count("\n") == 1 and message in error
    assert not out.exists()


def test_choices_inside_choices_are_refused_for_nnis_tuners(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "experiment.yaml"
    nested = {
        "strategy": {
            "choice": [
                "fixed",
                {
                    "darts": {
                        "relaxation": {
                            "choice": ["softmax", {"gumbel": {"clip": {"uniform": [1, 2]}}}]
                        }
                    }
                },
            ]
        }
    }
    base = {"steps": 4, "eval_every": 1}
    data = {**EXPERIMENT, "base": base, "hyperparameters": nested, "nni": {"tuner": "TPE"}}
    path.write_text(yaml.safe_dump(data))
    code = prefixnas.__main__.main(
        ["experiment", "start", str(path), "--out", str(tmp_path / "out")]
    )
    assert code == 2 and "fails on choices inside choices" in capsys.readouterr().err


@pytest.mark.parametrize("action", ["status", "export"])
def test_no_study_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], action: str
) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(EXPERIMENT))
    code = prefixnas.__main__.main(
        ["experiment", action, str(path), "--out", str(tmp_path / "out")]
    )
    said = capsys.readouterr()
    assert (code, said.out) == (2, "") and "no study of the experiment 'parts'" in said.err
    assert not (tmp_path / "out").exists()


def test_status_and_export_come_from_the_study(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = StudyServer(study)
    values = server.answer({"do": "next", "own": True})["values"]
    carry_out(study, values, lambda *_: None)
    server.answer({"do": "end", "trial": 0, "success": True})
    file, out = str(tmp_path / "experiment.yaml"), str(study.folder)
    assert prefixnas.__main__.main(["experiment", "status", file, "--out", out]) == 0
    shown = capsys.readouterr().out
    assert "NNI: not running" in shown and "1 of 3 trials are over; best: trial 0" in shown
    server.answer({"do": "next", "own": True})
    server.close()  # nobody runs that one any more
    assert prefixnas.__main__.main(["experiment", "status", file, "--out", out]) == 0
    assert "cut off" in capsys.readouterr().out
    table = tmp_path / "trials.json"
    arguments = ["experiment", "export", file, "--out", out, "--to"]
    assert prefixnas.__main__.main([*arguments, str(table)]) == 0
    first = json.loads(table.read_text())[0]
    assert first["score"] == values["learning_rate"] * 2 == study.row(0).score
    assert first["run directory"] == str(study.trial_folder(0))
    assert prefixnas.__main__.main([*arguments, str(tmp_path / "trials.csv")]) == 0
    assert (tmp_path / "trials.csv").read_text().startswith("trial,state,score,validation,")
    assert prefixnas.__main__.main([*arguments, str(tmp_path / "trials.txt")]) == 2


def test_a_hyperparameter_does_not_take_the_place_of_a_column() -> None:
    params = {"epochs": 3, "learning_rate": 0.5}
    record = _record(Row(0, COMPLETE, 0.7, {1: 0.4, 2: 0.7}, params, {}, 1.0))
    assert (record["epochs"], record["hyperparameter epochs"]) == ([0.4, 0.7], 3)
    assert record["learning_rate"] == 0.5


def test_processes_are_found_however_the_folder_is_written(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = tmp_path / "link"
    link.symlink_to(study.folder)
    file = str(tmp_path / "experiment.yaml")
    for out in (link, study.folder.parent / "link" / ".." / study.folder.name):
        variables = {**os.environ, MARK: str(study.folder.resolve())}
        started = subprocess.Popen(["sleep", "60"], env=variables)
        assert prefixnas.__main__.main(["experiment", "stop", file, "--out", str(out)]) == 0
        assert capsys.readouterr().out == "processes ended: 1\n"
        assert started.wait(10) < 0


def test_an_experiment_with_a_failed_trial_has_failed(
    study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    server, given = StudyServer(study), (study.experiment, study.folder, Output(), {}, "DONE")
    carry_out(study, server.answer({"do": "next", "own": True})["values"], lambda *_: None)
    server.answer({"do": "end", "trial": 0, "success": True})
    assert _finish(*given) == 0
    server.answer({"do": "next", "own": True})
    server.answer({"do": "end", "trial": 1, "success": False})
    assert _finish(*given) == 1
    assert "failed: trial 1: its process was ended" in capsys.readouterr().err
