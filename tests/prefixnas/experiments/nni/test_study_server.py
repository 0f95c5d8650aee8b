"""The study's side: trials are handed out once, and no result is lost."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from prefixnas.experiments.experiment import load_experiment
from prefixnas.experiments.nni import trial_process, waiting
from prefixnas.experiments.nni.jobs import read_jobs
from prefixnas.experiments.nni.manager import inside
from prefixnas.experiments.nni.settings import LAUNCH
from prefixnas.experiments.nni.study_server import StudyServer, note_error
from prefixnas.experiments.study import Study
from prefixnas.experiments.trial import TrialResult
from tests.prefixnas.experiments.nni.study import EXPERIMENT, carry_out

pytestmark = pytest.mark.usefixtures("no_workers")


def test_the_study_hands_out_each_trial_once(study: Study) -> None:
    server = StudyServer(study)
    handed = [server.answer({"do": "next", "own": True}) for _ in range(4)]
    assert [answer.get("trial") for answer in handed] == [0, 1, 2, None]
    first = handed[0]["values"]
    carry_out(study, first, lambda *_: None)
    server.answer({"do": "end", "trial": 0, "success": True})
    note_error(study.trial_folder(1), ValueError("too hot"))
    server.answer({"do": "end", "trial": 1, "success": False})
    server.answer({"do": "end", "trial": 2, "success": False})
    rows = study.rows()
    assert [row.state for row in rows] == ["complete", "failed", "failed"]
    assert rows[0].score == first["learning_rate"] * 2 and rows[0].params == {
        key: value for key, value in first.items() if key != "trial"
    }
    assert [row.notes.get("error") for row in rows[1:]] == [
        "ValueError: too hot",
        "its process was ended",
    ]


def test_what_a_lost_manager_left_is_found_again(study: Study) -> None:
    server = StudyServer(study)
    handed = [server.answer({"do": "next", "own": True})["values"] for _ in range(3)]
    server.close()
    carry_out(study, handed[0], lambda *_: None)  # finished while there was no manager
    again = StudyServer(study, recovered=[1])  # which NNI starts again by itself
    assert [row.state for row in study.rows()] == ["complete", "running", "running"]
    assert again.answer({"do": "next", "own": True})["values"] == handed[2]
    assert "trial" not in again.answer({"do": "next", "own": True})
    carry_out(study, handed[1], lambda *_: None)
    again.answer({"do": "sync"})
    assert study.row(1).state == "complete"
    value = {"trial": 1, "default": -1.0}
    assert again.answer({"do": "tell", "trial": 1, "value": value}) == {}  # told already
    assert study.row(1).score == handed[1]["learning_rate"] * 2


def test_a_trial_of_another_machine_is_told_by_its_message(study: Study) -> None:
    server = StudyServer(study)
    server.answer({"do": "next", "own": True})
    assert server.answer({"do": "report", "trial": 0, "epoch": 1, "score": 0.3}) == {"prune": False}
    value = {
        "default": 0.7,
        "trial": 0,
        "parameters": 5,
        "architecture": "layer0/a=x, layer1/a=f(0.1)",
        "validation": 0.6,
        "steps": 9,
    }
    server.answer({"do": "tell", "trial": 0, "value": value})
    # The last epoch was overtaken by the result.
    server.answer({"do": "report", "trial": 0, "epoch": 2, "score": 0.7})
    server.answer({"do": "end", "trial": 0, "success": True})
    row = study.row(0)
    assert (row.state, row.score, row.notes["steps"]) == ("complete", 0.7, 9)
    assert dict(row.epochs) == {1: 0.3, 2: 0.7}
    assert row.notes["architecture"] == {"layer0/a": "x", "layer1/a": "f(0.1)"}


CHOICES = {"layer1/kind=mlp/activation": "dropout(0.1, inplace=True)", "layer0/a": "x"}


def measured(*_: Any, **__: Any) -> TrialResult:
    return TrialResult(0.7, 0.6, [], 9, 5, CHOICES)


def test_an_architecture_from_another_machine_arrives_as_it_was(
    study: Study, tmp_path: Path
) -> None:
    server = StudyServer(study)
    values = server.answer({"do": "next", "own": True})["values"]
    sent: list[Any] = []
    channel = SimpleNamespace(parameters=lambda: values, final=sent.append)
    settings = {**study.experiment.order(), "folder": str(tmp_path / "there"), "gpus": None}
    trial_process.run({**settings, "run": f"{__name__}:measured"}, channel)  # type: ignore[arg-type]
    server.answer({"do": "tell", "trial": 0, "value": json.loads(json.dumps(sent[0]))})
    server.answer({"do": "end", "trial": 0, "success": True})
    assert study.row(0).notes["architecture"] == CHOICES
    assert "layer0/a=x" in sent[0]["architecture"]


@pytest.mark.parametrize("ending", ["end first", "closed"])
def test_a_result_from_another_machine_is_not_lost(study: Study, ending: str) -> None:
    server = StudyServer(study)
    server.answer({"do": "next", "own": True})
    told = {"default": 0.7, "trial": 0, "architecture": "", "parameters": 5, "validation": 0.6}
    if ending == "end first":
        server.answer({"do": "end", "trial": 0, "success": True})
        assert study.row(0).state == "running"
    server.answer({"do": "tell", "trial": 0, "value": {**told, "steps": 9}})
    if ending == "closed":
        server.close()
    assert (study.row(0).state, study.row(0).score) == ("complete", 0.7)


def test_the_pruner_ends_a_trial(tmp_path: Path) -> None:
    path = tmp_path / "experiment.yaml"
    pruner = {"threshold": {"lower": 0.5}}
    path.write_text(yaml.safe_dump({**EXPERIMENT, "pruner": pruner}))
    study = Study.open(load_experiment(path), tmp_path / "study")
    server = StudyServer(study)
    server.answer({"do": "next", "own": True})
    assert not server.answer({"do": "report", "trial": 0, "epoch": 1, "score": 0.6})["prune"]
    assert server.answer({"do": "report", "trial": 0, "epoch": 2, "score": 0.4})["prune"]
    server.answer({"do": "end", "trial": 0, "success": False})
    row = study.row(0)
    assert (row.state, dict(row.epochs)) == ("pruned", {1: 0.6, 2: 0.4})


def test_proposals_of_nnis_tuners_enter_the_study_once(study: Study) -> None:
    server = StudyServer(study)
    proposal = {"learning_rate": 0.005, "prefix_length": 7, "lora_rank": 16}
    assert server.answer({"do": "next", "own": False}) == {"propose": True}
    taken = server.answer({"do": "take", "values": proposal})
    assert taken == {"trial": 0, "values": {"trial": 0, **proposal}}
    assert server.answer({"do": "take", "values": proposal}) == {"repeated": True}
    carry_out(study, taken["values"], lambda *_: None)
    server.answer({"do": "end", "trial": 0, "success": True})
    known = server.answer({"do": "known"})
    assert known == {
        "trials": [{"parameter": proposal, "value": 0.01}],
        "direction": "maximize",
    }


def test_a_trial_that_nni_has_yet_to_start_is_waited_for(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = StudyServer(study)
    handed = [server.answer({"do": "next", "own": True})["trial"] for _ in range(2)]
    path = inside(study.folder) / LAUNCH
    path.parent.mkdir()
    path.write_text(json.dumps(study.experiment.order()))
    jobs: list[dict[str, Any]] = []
    looks = 0

    class Stub:
        folder = study.folder
        rest = SimpleNamespace(get=lambda _: jobs)

        def status(self) -> str:
            return waiting.NO_MORE

    def look() -> None:
        nonlocal looks
        looks += 1
        if looks in (1, 5):
            values = json.dumps({"parameters": {"trial": handed[len(jobs)]}})
            jobs.append({"status": "SUCCEEDED", "hyperParameters": [values]})

    monkeypatch.setattr(waiting, "SETTLE", 0.01)
    assert waiting.wait(Stub(), look, 0.02) == "DONE"  # type: ignore[arg-type]
    assert looks > 5


def test_jobs_are_read_from_nnis_database(tmp_path: Path) -> None:
    assert read_jobs(tmp_path) == []
