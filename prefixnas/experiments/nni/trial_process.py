"""One trial under NNI: takes its values from the manager, runs it, reports back.

A manager that goes away does not end it: the result is in the run directory, and the study takes it
from there when the experiment goes on. NNI starts a trial that was interrupted once more, under the
same number: it waits for the one that still runs, or reports what is there already.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from prefixnas.base.console import guarded
from prefixnas.experiments.experiment import read_order
from prefixnas.experiments.hyperparameters import assign, by_name
from prefixnas.experiments.nni.client import Channel
from prefixnas.experiments.nni.space import unpack
from prefixnas.experiments.nni.study_server import CHOICES, note_error
from prefixnas.experiments.trial import Busy, TrialResult, trial_folder


def run(settings: Mapping[str, Any], channel: Channel) -> None:
    """Run the trial that the manager names."""
    values = channel.parameters()
    number = values["trial"]
    folder = trial_folder(Path(settings["folder"]), number)
    print(f"trial {number}: run directory {folder}", flush=True)

    def report(epoch: int, score: float) -> None:
        channel.intermediate({"default": score, "epoch": epoch, "trial": number})

    try:
        result = _result(settings, values, report, folder)
    except Exception as error:
        note_error(folder, error)
        raise
    channel.final(
        {
            "default": result.score,
            "trial": number,
            "parameters": result.parameters,
            "architecture": ", ".join(f"{key}={it}" for key, it in result.architecture.items()),
            CHOICES: json.dumps(dict(result.architecture)),
            "run directory": str(folder),
            "validation": result.validation,
            "steps": result.steps,
        }
    )


def _result(
    settings: Mapping[str, Any], values: Mapping[str, Any], report: Any, folder: Path
) -> TrialResult:
    experiment = read_order(settings)
    answers = unpack(experiment.hyperparameters, values)
    assigned = assign(experiment.hyperparameters, by_name(answers))
    config = experiment.resolve(assigned)
    if (settings["gpus"] or 1) > 1 and "processes" not in experiment.file.base:
        config["processes"] = settings["gpus"]  # one for each GPU; this one alone talks to NNI
    module, _, name = settings["run"].partition(":")
    run_trial = getattr(import_module(module), name)
    while True:
        try:
            result: TrialResult = run_trial(config, report, folder, metric=experiment.target.metric)
            return result
        except Busy:  # its former manager is gone, it runs on
            time.sleep(1)


def main(argv: Sequence[str]) -> int:
    """Run the trial of NNI's environment variables and the settings' file."""
    settings = json.loads(Path(argv[0]).read_text(encoding="utf-8"))
    run(settings, Channel())
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main, None))
