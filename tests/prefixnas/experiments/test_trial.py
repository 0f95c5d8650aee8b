"""A trial is a search: its score, its epochs, what ends it early."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

import prefixnas.__main__
from prefixnas.experiments.nni import trial_process
from prefixnas.experiments.nni.client import Channel
from prefixnas.experiments.nni.space import pack
from prefixnas.experiments.rows import PRUNED, STEPS
from prefixnas.experiments.trial import (
    Busy,
    Pruned,
    TrialResult,
    held,
    run_trial,
    trial_folder,
)
from prefixnas.experiments.worker import work
from tests.prefixnas.experiments.small import TOY, ignore, open_small
from tests.workbench import events


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


def impatient_trial(folder: Path, base: dict[str, Any]) -> tuple[Path, TrialResult]:
    """Run a trial that learns nothing, of a study that waits for three epochs."""
    study = open_small(
        folder,
        base={**TOY, **base},
        hyperparameters={"clip": {"uniform": [1e-9, 2e-9]}},
        early_stopping={"patience": 3},
    )
    claim = study.claim()
    assert claim is not None
    return claim.folder, run_trial(claim.config(), ignore, claim.folder)


def test_patience_ends_a_trial_early(tmp_path: Path) -> None:
    base = {"strategy": "fixed", "steps": 60, "eval_every": 2, "search_fraction": 0.0}
    _, result = impatient_trial(tmp_path, base)
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


def test_a_trial_is_run_by_one_process_alone(tmp_path: Path) -> None:
    study = open_small(tmp_path)
    claim = study.claim()
    assert claim is not None
    with held(claim.folder), pytest.raises(Busy, match="another process"):
        run_trial(claim.config(), claim.report, claim.folder)


def test_patience_ends_a_search_too(tmp_path: Path) -> None:
    base = {"strategy": "darts", "steps": 60, "eval_every": 2, "alpha_learning_rate": 1e-9}
    run, result = impatient_trial(tmp_path, base)
    stops = events(run, "stop")
    assert [stop["reason"] for stop in stops] == ["no better score in 3 epochs"]
    searched = [event for event in events(run, "epoch") if event["phase"] == "search"]
    assert 4 <= len(searched) < 15 and result.steps < 60
