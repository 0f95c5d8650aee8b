"""NNI's manager as a process: started guarded, looked at from outside, ended with all it started.

It is started without NNI's own Python code: with a configuration that was checked before, in a
session of its own, and with the guard loaded first. Whoever started it may go; it goes on.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from prefixnas.base.errors import UserError
from prefixnas.base.files import write_text
from prefixnas.experiments.nni import processes
from prefixnas.experiments.nni.environment import NniEnvironment
from prefixnas.experiments.nni.rest import Rest
from prefixnas.experiments.nni.sockets import check_port, is_loopback, open_to_network

GUARD = Path(__file__).parent / "guard.js"
STATE = "manager.json"
LOG = "manager.log"
PATIENCE = 60.0
"""Seconds for the manager to answer; on a busy machine it takes a while."""

SETTLE = 3.0
"""Seconds for what hangs on the manager to end after it."""

Action = Literal["create", "resume", "view"]


@dataclass(frozen=True)
class Manager:
    """A manager that was started; it may have ended since.

    Attributes:
        folder: The experiment's folder.
        pid: Its process.
        created: When that process began, to tell it from a later one of the same number.
        host: Where it listens.
        port: Its port.
        secret: The secret part of its addresses.
    """

    folder: Path
    pid: int
    created: float
    host: str
    port: int
    secret: str

    @property
    def rest(self) -> Rest:
        """Its interface; one that listens everywhere is asked on loopback."""
        host = self.host if is_loopback(self.host) else "127.0.0.1"
        return Rest(host, self.port, self.secret)

    @property
    def process(self) -> psutil.Process | None:
        """Its process, if it lives."""
        return processes.same_process(self.pid, self.created)

    def status(self) -> str:
        """Return NNI's word for what it does.

        Raises:
            OSError: It does not answer.
        """
        return str(self.rest.get("/check-status")["status"])


def inside(folder: Path) -> Path:
    """Return where NNI's files of an experiment lie; nobody else may look into it."""
    return folder / "nni"


def last_manager(folder: Path) -> Manager | None:
    """Return the manager that was started last, dead or alive."""
    path = inside(folder) / STATE
    if not path.is_file():
        return None
    return Manager(folder, **json.loads(path.read_text(encoding="utf-8")))


def living_manager(folder: Path) -> Manager | None:
    """Return the experiment's manager if it runs."""
    manager = last_manager(folder)
    return manager if manager is not None and manager.process is not None else None


def start_manager(
    folder: Path,
    environment: NniEnvironment,
    config: Mapping[str, Any],
    name: str,
    action: Action,
    *,
    host: str,
    port: int,
    hosts: tuple[str, ...] = (),
    allow_remote: bool = False,
) -> Manager:
    """Start a manager and make sure that it listens where it should and nowhere else.

    Args:
        folder: The experiment's folder.
        environment: NNI.
        config: Its configuration, see `settings.make_config`.
        name: The experiment's name for NNI.
        action: Begin, go on, or only show.
        host: Where to listen.
        port: The port.
        hosts: Further names under which requests may come.
        allow_remote: Leave a listener alone that the network can reach.

    Raises:
        UserError: The port is taken, the manager did not start, or listens elsewhere, too.
    """
    check_port(host, port)
    # The same secret as before: a page that is open goes on working.
    former = last_manager(folder)
    secret = former.secret if former is not None else secrets.token_hex(24)
    process = _spawn(folder, environment, name, action, host, port, secret, hosts)
    manager = Manager(folder, process.pid, process.create_time(), host, port, secret)
    state = {key: value for key, value in asdict(manager).items() if key != "folder"}
    write_text(inside(folder) / STATE, json.dumps(state) + "\n")
    try:
        _wait_until_up(manager, process)
        _refuse_open(manager, allow_remote)
        _list_experiment(manager, config, name)
        manager.rest.call("POST", "/experiment", config)
        _refuse_open(manager, allow_remote)
    except BaseException as error:  # Ctrl-C, too
        end_everything(folder)
        if not isinstance(error, OSError):
            raise
        raise UserError(f"NNI did not start: {error}; see {inside(folder) / LOG}") from error
    return manager


def _spawn(
    folder: Path,
    environment: NniEnvironment,
    name: str,
    action: Action,
    host: str,
    port: int,
    secret: str,
    hosts: tuple[str, ...],
) -> psutil.Popen:
    arguments = {
        "port": port,
        "experiment-id": name,
        "action": action,
        "experiments-directory": inside(folder),
        "log-level": "info",
        "python-interpreter": environment.python.absolute(),
        "mode": "local",
    }
    command = [str(environment.node / "node"), str(environment.node / "main.js")]
    command += [f"--{key}={value}" for key, value in arguments.items()]
    guard = {
        "host": host,
        "hosts": sorted({"localhost", "127.0.0.1", *hosts} | ({host} - {"0.0.0.0"})),
        "secret": secret,
        "home": str(inside(folder)),
    }
    variables = {
        **os.environ,
        "NODE_OPTIONS": f'--require "{GUARD}"',
        "PREFIXNAS_NNI_GUARD": json.dumps(guard),
        processes.MARK: str(folder),
    }
    with (inside(folder) / LOG).open("ab") as log:
        return psutil.Popen(
            command,
            cwd=environment.node,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _wait_until_up(manager: Manager, process: psutil.Popen) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if isinstance(manager.rest.get("/check-status"), dict):  # a text until it is set up
                return
        except OSError:
            if process.poll() is not None:
                raise
        if time.monotonic() > deadline:
            raise OSError(f"no answer within {PATIENCE:.0f} seconds")
        time.sleep(0.1)


def _refuse_open(manager: Manager, allow_remote: bool) -> None:
    process = manager.process
    if process is None:
        raise OSError("its process ended")
    tuners = processes.processes_of(manager.folder, tuner=True)
    if not allow_remote and (found := open_to_network([process, *tuners])):
        raise UserError(f"NNI was ended: it listened where the network can reach it: {found[0]}")


def _list_experiment(manager: Manager, config: Mapping[str, Any], name: str) -> None:
    """Write the list of experiments that the web interface shows: this one alone."""
    entry = {
        "id": name,
        "port": manager.port,
        "startTime": int(time.time() * 1000),
        "endTime": "N/A",
        "status": "INITIALIZED",
        "platform": config["trainingService"]["platform"],
        "experimentName": config["experimentName"],
        "tag": [],
        "pid": manager.pid,
        "webuiUrl": [],
        "logDir": str(inside(manager.folder)),
        "prefixUrl": manager.secret,
    }
    listing = inside(manager.folder) / "nni-experiments"
    listing.mkdir(exist_ok=True)
    write_text(listing / ".experiment", json.dumps({name: entry}))


def stop_manager(folder: Path, patience: float = 30.0) -> int:
    """End an experiment's manager, its trials, and whatever they started.

    Args:
        folder: The experiment's.
        patience: Seconds for NNI to end by itself, so that it notes how its trials ended.

    Returns:
        How many processes did not end by themselves.
    """
    manager = living_manager(folder)
    process = manager.process if manager is not None else None
    try:
        if process is not None:
            _ask_to_end(process, folder, patience)
    finally:  # a second Ctrl-C is one for those who cannot wait
        left = end_everything(folder)
    return left


def _ask_to_end(process: psutil.Process, folder: Path, patience: float) -> None:
    process.terminate()
    with suppress(psutil.TimeoutExpired):
        process.wait(patience)
    deadline = time.monotonic() + SETTLE
    while processes.processes_of(folder) and time.monotonic() < deadline:
        time.sleep(0.1)


def end_everything(folder: Path) -> int:
    """End all processes of an experiment; return how many there were."""
    return processes.end(lambda: processes.processes_of(folder))
