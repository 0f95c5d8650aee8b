"""The key `nni` of an experiment file, and NNI's own configuration that is made from it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefixnas.base.errors import UserError, unknown
from prefixnas.base.options import FLAG, Options, make, option, resolve
from prefixnas.experiments.experiment import Experiment
from prefixnas.experiments.nni.environment import NniEnvironment
from prefixnas.experiments.nni.space import depth, to_nni

OURS = "optuna"
TUNERS = ("TPE", "Random", "Evolution", "GridSearch", "GP", "Metis")
"""NNI's tuners that need no further packages."""

SERVICES = ("local", "remote", "openpai", "aml", "dlc", "kubeflow", "frameworkcontroller")
"""NNI's training services; a list of several is its `hybrid`."""

GENERATED = (
    "experiment_name",
    "search_space",
    "trial_command",
    "trial_concurrency",
    "max_trial_number",
    "experiment_working_directory",
    "tuner",
    "assessor",
)
"""NNI's keys that the experiment file says in its own words."""

LAUNCH, CODE = "launch.json", "code"
"""What a trial's launcher reads, and the folder that is sent to the machines of a service."""

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class NniSettings(Options):
    """The key `nni` of an experiment file."""

    concurrency: int = option(1, "trials that run side by side", at_least=1, at_most=1024)
    port: int = option(8080, "of the web interface", at_least=1, at_most=65535)
    tuner: str | dict[str, Any] = option(OURS, "optuna, or one of NNI's: a name, or name: options")
    gpus_per_trial: int | None = option(None, "GPUs of a trial; none: not looked at", at_least=0)
    trials_per_gpu: int = option(1, "trials that share a GPU", at_least=1)
    gpu_indices: list[int] = option([], "GPUs that may be used; none named: all")
    worker_python: str | None = option(None, "Python with prefixnas on the machines of a service")
    worker_folder: str | None = option(None, "where trials lie on the machines of a service")
    config: dict[str, Any] = option({}, "NNI's own keys, passed through: training_service, ...")

    @property
    def service(self) -> str:
        """NNI's name of the training service."""
        given = self.config.get("training_service", {})
        return str(given.get("platform", "local")) if isinstance(given, Mapping) else "hybrid"

    def inner_tuner(self) -> dict[str, Any] | None:
        """Return NNI's tuner with its arguments; None for ours."""
        if isinstance(self.tuner, str):
            return None if self.tuner == OURS else {"name": self.tuner, "class_args": {}}
        ((name, arguments),) = self.tuner.items()
        return {"name": name, "class_args": dict(arguments or {})}


def read_settings(experiment: Experiment, changes: Mapping[str, Any] | None = None) -> NniSettings:
    """Check the key `nni` of an experiment.

    Args:
        experiment: The experiment.
        changes: Keys that are typed as flags instead.

    Raises:
        UserError: An unknown key, tuner or service, a value that is not allowed.
    """
    where = f"{experiment.where}: nni"
    layers = [(where, experiment.file.nni), (FLAG, dict(changes or {}))]
    settings: NniSettings = make(NniSettings, resolve({"nni": NniSettings}, layers))
    _check_tuner(settings, experiment, where)
    for key in settings.config:
        if key in GENERATED:
            raise UserError(f"{where}: config: {key!r} is made from the experiment; leave it out")
    if '"trial_gpu_number"' in json.dumps(settings.config):
        raise UserError(
            f"{where}: config: NNI's trial_gpu_number floods the machine with processes when a "
            "GPU is not free: use gpus_per_trial"
        )
    if settings.service not in (*SERVICES, "hybrid"):
        raise unknown("training service", settings.service, SERVICES, f"{where}: config")
    if settings.service != "local" and not (settings.worker_python and settings.worker_folder):
        raise UserError(
            f"{where}: the service {settings.service!r} needs worker_python and worker_folder"
        )
    return settings


def _check_tuner(settings: NniSettings, experiment: Experiment, where: str) -> None:
    options = [{}] if isinstance(settings.tuner, str) else [*settings.tuner.values()]
    if len(options) != 1 or not isinstance(options[0], Mapping | None):
        raise UserError(f"{where}: tuner: expected a name, or NAME: {{OPTION: VALUE}}")
    inner = settings.inner_tuner()
    if inner is None:
        return
    if inner["name"] not in TUNERS:
        raise unknown("tuner", inner["name"], [OURS, *TUNERS], where)
    if depth(experiment.hyperparameters) > 1:
        raise UserError(
            f"{where}: tuner {inner['name']!r} fails on choices inside choices: use {OURS!r}"
        )


def experiment_id(name: str) -> str:
    """Return a name as NNI allows it."""
    return re.sub(r"[^\w-]", "-", name, flags=re.ASCII)[:32]


def make_config(
    experiment: Experiment,
    settings: NniSettings,
    environment: NniEnvironment,
    folder: Path,
) -> dict[str, Any]:
    """Return the configuration that NNI's manager is started with, checked by NNI itself.

    Args:
        experiment: The experiment.
        settings: Its settings for NNI.
        environment: NNI.
        folder: Where NNI keeps its files.

    Raises:
        UserError: NNI refuses a key or a value that is passed through.
    """
    local = settings.service == "local"
    python = sys.executable if local else settings.worker_python
    server = [sys.executable, "-m", "prefixnas.experiments.nni.study_server", str(folder / LAUNCH)]
    command = [str(python), "-m", "prefixnas.experiments.nni.launcher"]
    command.append(str(folder / LAUNCH) if local else LAUNCH)
    code = Path.cwd() if local else folder / CODE
    wanted = {
        "trial_code_directory": str(code),
        "training_service": {"platform": "local"},
        "log_level": "info",
        **settings.config,
        "experiment_name": experiment.name,
        "search_space": to_nni(experiment.hyperparameters),
        "trial_command": f"exec {shlex.join(command)}",  # signals reach the launcher, not a shell
        "trial_concurrency": settings.concurrency,
        "max_trial_number": experiment.trials,
        "experiment_working_directory": str(folder),
        "tuner": {
            "class_name": "tuner.StudyTuner",
            "code_directory": str(_HERE),
            "class_args": {"server": server, "inner": settings.inner_tuner()},
        },
        "assessor": {
            "class_name": "tuner.StudyAssessor",
            "code_directory": str(_HERE),
            "class_args": {"server": server},
        },
    }
    return _canonical(wanted, environment, f"{experiment.where}: nni: config")


def _canonical(
    wanted: Mapping[str, Any], environment: NniEnvironment, where: str
) -> dict[str, Any]:
    try:
        done = subprocess.run(
            [str(environment.python), "-I", str(_HERE / "canonical.py")],
            input=json.dumps(wanted),
            capture_output=True,
            text=True,
            timeout=120,
        )
        answer = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError) as error:
        raise UserError(f"{environment.python}: NNI does not answer there") from error
    if "error" in answer:
        raise UserError(f"{where}: NNI says: {answer['error']}")
    made: dict[str, Any] = answer["config"]
    return made
