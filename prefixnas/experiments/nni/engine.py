"""An experiment under NNI, from its file to its end: create, start, resume, view, stop."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from prefixnas.base.errors import UserError
from prefixnas.base.files import write_text
from prefixnas.base.locks import try_lock
from prefixnas.experiments.experiment import Experiment
from prefixnas.experiments.lease import Demand
from prefixnas.experiments.nni import processes
from prefixnas.experiments.nni.environment import NniEnvironment
from prefixnas.experiments.nni.jobs import read_jobs
from prefixnas.experiments.nni.manager import (
    LOG,
    Action,
    Manager,
    inside,
    living_manager,
    start_manager,
    stop_manager,
)
from prefixnas.experiments.nni.settings import (
    CODE,
    LAUNCH,
    NniSettings,
    experiment_id,
    make_config,
)
from prefixnas.experiments.nni.sockets import check_port, is_loopback
from prefixnas.experiments.nni.study_server import RECOVERED, StudyServer
from prefixnas.experiments.study import Study

RUN = "prefixnas.experiments.trial:run_trial"
HOSTS = ("127.0.0.1", "localhost", "0.0.0.0")
CONFIG = "config.json"

TUNER_PATIENCE = 130.0
"""Seconds for the tuner to connect."""


@dataclass(frozen=True)
class Engine:
    """NNI for one experiment.

    Attributes:
        experiment: What to try.
        settings: Its settings for NNI.
        folder: Where everything of it lies.
        environment: NNI.
        host: Where the web interface listens.
        allow_remote: Whether that may be an address that the network can reach.
        run: The function that carries a trial out, `module:name`.
        leases: Where GPUs are leased; None: in the folder for temporary files.

    Raises:
        UserError: A host that trials would not reach, or that the network could.
    """

    experiment: Experiment
    settings: NniSettings
    folder: Path
    environment: NniEnvironment
    host: str = "127.0.0.1"
    allow_remote: bool = False
    run: str = RUN
    leases: Path | None = None

    def __post_init__(self) -> None:
        if self.host not in HOSTS:
            raise UserError(
                f"--host {self.host}: NNI's tuner and trials reach it at {HOSTS[0]}: take that, or "
                f"{HOSTS[-1]} for other machines"
            )
        if not is_loopback(self.host) and not self.allow_remote:
            raise UserError(
                f"--host {self.host}: everybody who can reach it could look at the experiment and "
                "end it with the secret address alone; add --allow-remote if that is wanted"
            )

    @property
    def id(self) -> str:
        """The experiment's name for NNI."""
        return experiment_id(self.experiment.name)

    @property
    def started(self) -> bool:
        """Whether NNI has begun it, in this run or an earlier one."""
        return (inside(self.folder) / self.id / "db" / "nni.sqlite").is_file()

    def create(self) -> dict[str, Any]:
        """Check everything, write what NNI will be started with, begin the study.

        Returns:
            NNI's configuration.

        Raises:
            UserError: NNI refuses a key, the study belongs to another experiment, a trial wants
                more GPUs than there are.
        """
        if self.settings.service == "local":
            Demand(
                self.settings.gpus_per_trial or 0,
                self.settings.trials_per_gpu,
                tuple(self.settings.gpu_indices),
            ).usable()
        inner = inside(self.folder)
        if self.settings.service != "local":  # NNI's check of the configuration looks for it
            (inner / CODE).mkdir(parents=True, exist_ok=True)
        config = make_config(self.experiment, self.settings, self.environment, inner)
        Study.open(self.experiment, self.folder)
        inner.mkdir(exist_ok=True)
        inner.chmod(0o700)  # NNI's logs hold the secret
        write_text(inner / CONFIG, json.dumps(config, indent=2) + "\n")
        write_text(inner / LAUNCH, self._launch(self.folder, sys.executable))
        if self.settings.service != "local":
            worker = Path(str(self.settings.worker_folder))
            write_text(
                inner / CODE / LAUNCH, self._launch(worker, str(self.settings.worker_python))
            )
        return config

    def start(self) -> Manager:
        """Begin; raises UserError if it was begun before, or see `create` and `start_manager`."""
        if self.started:
            raise UserError(f"{self.folder}: was started before: use resume, or another --out")
        check_port(self.host, self.settings.port)  # before anything is written
        return self._start("create", self.create())

    def resume(self) -> Manager:
        """Go on: trials that were lost run again, those that still run are waited for.

        Raises:
            UserError: It was never started, or it runs; else see `create` and `start_manager`.
        """
        self._check_resting()
        config = self.create()
        jobs = read_jobs(inside(self.folder) / self.id)
        taken_up = sorted({job.trial for job in jobs if job.taken_up})
        write_text(inside(self.folder) / RECOVERED, json.dumps(taken_up) + "\n")
        # A tuner that outlived its manager would talk to the next one.
        processes.end(lambda: processes.processes_of(self.folder, tuner=True))
        over = sum(row.over for row in Study.open(self.experiment, self.folder).rows())
        manager = self._start("resume", config)
        # NNI goes on with the number it began with, and counts every trial it ever submitted.
        new = max(0, self.experiment.trials - over - len(taken_up))
        self._update(manager, "MAX_TRIAL_NUM", "maxTrialNumber", len(jobs) + new)
        self._update(manager, "TRIAL_CONCURRENCY", "trialConcurrency", self.settings.concurrency)
        deadline = time.monotonic() + TUNER_PATIENCE
        while new and manager.status() in ("DONE", "NO_MORE_TRIAL"):  # by the old number
            if time.monotonic() > deadline:
                raise UserError(
                    f"{self.folder}: NNI takes up no more trials; see {inside(self.folder) / LOG}"
                )
            time.sleep(0.1)
        return manager

    def view(self) -> Manager:
        """Show what there is, without going on."""
        self._check_resting()
        config = json.loads((inside(self.folder) / CONFIG).read_text(encoding="utf-8"))
        return self._start("view", config)

    def stop(self) -> int:
        """End the manager and all it started, see `stop_manager`; settle the study."""
        left = stop_manager(self.folder)
        settle(self.experiment, self.folder)
        return left

    def _check_resting(self) -> None:
        if not self.started:
            raise UserError(f"{self.folder}: NNI has not begun this experiment: use start")
        self._check_stopped()

    def _check_stopped(self) -> None:
        if (manager := living_manager(self.folder)) is not None:
            raise UserError(f"{self.folder}: it runs already: {manager.rest.url}")

    def _start(self, action: Action, config: Mapping[str, Any]) -> Manager:
        turn = try_lock(inside(self.folder) / "start.lock")
        if turn is None:
            raise UserError(f"{self.folder}: another command is starting it")
        with turn:
            self._check_stopped()
            log = inside(self.folder) / self.id / "log" / "nnimanager.log"
            known = log.stat().st_size if log.is_file() else 0
            manager = start_manager(
                self.folder,
                self.environment,
                config,
                self.id,
                action,
                host=self.host,
                port=self.settings.port,
                hosts=self._names(),
                allow_remote=self.allow_remote,
            )
            if action != "view":
                self._wait_for_tuner(manager, log, known)
        return manager

    def _names(self) -> tuple[str, ...]:
        """Return further names that this machine may be asked under."""
        named = str(self.settings.config.get("nni_manager_ip", ""))
        if is_loopback(self.host):
            return (named,) if named else ()
        found = {named, socket.gethostname(), socket.getfqdn()} - {""}
        for addresses in psutil.net_if_addrs().values():
            found |= {one.address for one in addresses if one.family == socket.AF_INET}
        return tuple(sorted(found))

    def _wait_for_tuner(self, manager: Manager, log: Path, known: int) -> None:
        """Wait until the tuner knows the search space, so that its mistakes show here.

        Args:
            manager: The manager.
            log: Its log.
            known: How many bytes of it are of earlier managers.

        Raises:
            UserError: The tuner did not start, or ended.
        """
        deadline = time.monotonic() + TUNER_PATIENCE
        while time.monotonic() < deadline:
            try:
                status = manager.rest.get("/check-status")
            except OSError as error:
                status = {"status": "ERROR", "errors": [str(error)]}
            if status["status"] == "ERROR":
                stop_manager(self.folder)
                raise UserError(f"NNI's tuner did not start: {status['errors']}; see {log}")
            text = log.read_bytes()[known:] if log.is_file() else b""
            if status["status"] not in ("INITIALIZED", "RUNNING") or b"dispatcher: ID" in text:
                return
            time.sleep(0.2)

    def _update(self, manager: Manager, kind: str, key: str, value: int) -> None:
        profile = manager.rest.get("/experiment")
        profile["params"][key] = value
        manager.rest.call("PUT", f"/experiment?update_type={kind}", profile)

    def _launch(self, folder: Path, python: str) -> str:
        settings = {
            **self.experiment.order(),
            "folder": str(folder),
            "run": self.run,
            "command": [python, "-m", "prefixnas.experiments.nni.trial_process"],
            "gpus": self.settings.gpus_per_trial,
            "share": self.settings.trials_per_gpu,
            "indices": self.settings.gpu_indices,
            "concurrency": self.settings.concurrency,
            "leases": None if self.leases is None else str(self.leases),
        }
        return json.dumps(settings, indent=2) + "\n"


def settle(experiment: Experiment, folder: Path) -> None:
    """Tell the study what NNI's tuner was not told in time; nothing of the experiment runs."""
    if Study.begun(experiment, folder):
        StudyServer(Study.open(experiment, folder)).close()
