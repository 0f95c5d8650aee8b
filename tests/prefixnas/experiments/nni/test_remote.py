"""Trials over SSH: a server of its own on this machine's loopback address plays the other machine.

OpenSSH's server (`sshd`) is needed besides NNI's environment, and as root the user `sshd` and the
folder /run/sshd, which its package makes. PREFIXNAS_SSHD names a server that is not on the path.
"""

from __future__ import annotations

import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from prefixnas.experiments.nni.engine import Engine
from prefixnas.experiments.nni.environment import VARIABLE
from prefixnas.experiments.nni.processes import processes_of
from prefixnas.experiments.nni.sockets import is_loopback, listeners
from prefixnas.experiments.nni.waiting import wait
from prefixnas.experiments.rows import COMPLETE
from prefixnas.experiments.trial import RESULT
from tests import ROOT
from tests.prefixnas.experiments.nni.test_engine import (
    ask,
    free_port,
    make_engine,
    rows,
    running,
    wait_until,
)
from tests.prefixnas.experiments.nni.trials import KEYS, SECONDS

SSHD = shutil.which(
    os.environ.get("PREFIXNAS_SSHD", "sshd"), path=os.environ.get("PATH", "") + ":/usr/sbin"
)
READY = os.geteuid() != 0 or Path("/run/sshd").is_dir()

pytestmark = [
    pytest.mark.nni,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        VARIABLE not in os.environ,
        reason=f"{VARIABLE} names no Python with NNI; docs/nni.md says how to set one up",
    ),
    pytest.mark.skipif(SSHD is None, reason="no sshd on the path, nor in PREFIXNAS_SSHD"),
    pytest.mark.skipif(not READY, reason="as root, sshd needs the user sshd and /run/sshd"),
]
HERE = "PREFIXNAS_TEST_MACHINE"


@dataclass(frozen=True)
class Machine:
    """What plays the other machine.

    Attributes:
        port: Of its SSH server.
        key: The private key that it lets in.
        home: The home of whoever comes in.
    """

    port: int
    key: Path
    home: Path

    @property
    def trials(self) -> Path:
        """Where the run directories lie."""
        return self.home / "study" / "trials"

    def processes(self) -> list[psutil.Process]:
        """Return what was started over SSH and lives."""
        found = []
        for process in psutil.process_iter():
            try:
                inside = process.environ().get(HERE) == str(self.home)
                if inside and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found


@contextmanager
def ssh_server(folder: Path, *variables: str) -> Iterator[Machine]:
    """Run an SSH server on loopback that lets one new key in."""
    folder.mkdir(mode=0o700)
    for name in ("host", "user"):
        key = ["ssh-keygen", "-q", "-t", "rsa", "-m", "PEM", "-N", "", "-f", str(folder / name)]
        subprocess.run(key, check=True)
    machine = Machine(free_port(), folder / "user", folder / "home")
    machine.home.mkdir()
    shown = [f"HOME={machine.home}", f"{HERE}={machine.home}", f"PYTHONPATH={ROOT}", *variables]
    settings = f"""
        ListenAddress 127.0.0.1:{machine.port}
        HostKey {folder / "host"}
        AuthorizedKeysFile {folder / "user.pub"}
        PidFile none
        StrictModes no
        PasswordAuthentication no
        KbdInteractiveAuthentication no
        PermitRootLogin prohibit-password
        Subsystem sftp internal-sftp
        SetEnv {" ".join(shown)}
    """
    (folder / "settings").write_text(settings)
    assert SSHD is not None
    with (folder / "log").open("wb") as log:
        command = [SSHD, "-D", "-e", "-f", str(folder / "settings")]
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_until(lambda: answers(machine.port) or server.poll() is not None, 20)
        assert server.poll() is None, (folder / "log").read_text()
        yield machine
    finally:
        server.terminate()
        server.wait()
        for process in machine.processes():
            process.kill()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def make_remote(folder: Path, machine: Machine, trials: int) -> Engine:
    """Return an experiment of quick trials on the machine, two at a time."""
    place = {
        "host": "127.0.0.1",
        "port": machine.port,
        "user": getpass.getuser(),
        "ssh_key_file": str(machine.key),
        "python_path": str(Path(os.environ[VARIABLE]).absolute().parent),
    }
    return make_engine(
        folder,
        trials,
        worker_python=sys.executable,
        worker_folder=str(machine.home / "study"),
        config={
            "nni_manager_ip": "127.0.0.1",
            "training_service": {"platform": "remote", "machine_list": [place]},
        },
    )


def test_trials_run_on_another_machine(tmp_path: Path) -> None:
    with ssh_server(tmp_path / "ssh") as machine:
        engine = make_remote(tmp_path, machine, 6)
        with running(engine, engine.start) as manager:
            assert wait(manager) == "DONE"
        wait_until(lambda: machine.processes() == [], 20)
    found = rows(engine)
    assert [row.state for row in found] == [COMPLETE] * 6
    assert len({tuple(sorted(row.params.items())) for row in found}) == 6
    for row in found:
        folder = machine.trials / f"{row.number:04}"
        config = json.loads((folder / "config.json").read_text())
        assert config == {key: row.params[key] for key in KEYS}
        assert row.score == config["learning_rate"] * 2 and sorted(row.epochs) == [1, 2]
        assert row.notes["architecture"] == {"layer0/activation": "relu"}
        assert not (engine.folder / "trials" / f"{row.number:04}").exists()


def test_the_other_machine_is_guarded_and_nothing_is_left_there(tmp_path: Path) -> None:
    with ssh_server(tmp_path / "ssh", f"{SECONDS}=60") as machine:
        engine = make_remote(tmp_path, machine, 2)
        with running(engine, engine.start) as manager:
            wait_until(lambda: len(begun(machine)) == 2)
            started = [*processes_of(engine.folder), *machine.processes()]
            found = listeners(started)
            assert len(found) == 2  # the manager and the keeper
            assert all(is_loopback(host) for host, _ in found)
            keeper = next(port for _, port in found if port != manager.port)
            for strange in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
                assert ask(replace(manager, port=keeper), "/env/", "GET", None, **strange)[0] == 403
            assert not list(machine.home.rglob("pip"))
        assert processes_of(engine.folder) == []
        wait_until(lambda: machine.processes() == [], 20)


def test_trials_elsewhere_outlive_the_manager(tmp_path: Path) -> None:
    with ssh_server(tmp_path / "ssh", f"{SECONDS}=10") as machine:
        engine = make_remote(tmp_path, machine, 3)
        with running(engine, engine.start) as manager:
            wait_until(lambda: len(begun(machine)) == 2)
            assert manager.process is not None
            manager.process.kill()
            wait_until(lambda: len(list(machine.trials.glob(f"*/{RESULT}"))) == 2)
            wait_until(lambda: machine.processes() == [], 60)
            assert wait(engine.resume()) == "DONE"
        runs = (machine.trials / "runs.jsonl").read_text().splitlines()
    assert [row.state for row in rows(engine)] == [COMPLETE] * 3
    assert sorted(json.loads(run)["trial"] for run in runs) == ["0000", "0001", "0002"]


def begun(machine: Machine) -> list[Path]:
    return list(machine.trials.glob("*/config.json"))
