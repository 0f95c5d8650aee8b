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
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from prefixnas.experiments.nni.engine import Engine, wait
from prefixnas.experiments.nni.environment import VARIABLE
from prefixnas.experiments.rows import COMPLETE
from tests.prefixnas.nni_trials import KEYS
from tests.prefixnas.test_nni import free_port, make_engine, rows, running, wait_until

SSHD = shutil.which(
    os.environ.get("PREFIXNAS_SSHD", "sshd"), path=os.environ.get("PATH", "") + ":/usr/sbin"
)
READY = os.geteuid() != 0 or Path("/run/sshd").is_dir()

pytestmark = [
    pytest.mark.nni,
    pytest.mark.slow,
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
def ssh_server(folder: Path) -> Iterator[Machine]:
    """Run an SSH server on loopback that lets one new key in."""
    folder.mkdir(mode=0o700)
    for name in ("host", "user"):
        key = ["ssh-keygen", "-q", "-t", "rsa", "-m", "PEM", "-N", "", "-f", str(folder / name)]
        subprocess.run(key, check=True)
    machine = Machine(free_port(), folder / "user", folder / "home")
    machine.home.mkdir()
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
        SetEnv HOME={machine.home} {HERE}={machine.home} PYTHONPATH={Path(__file__).parents[2]}
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
        folder = machine.home / "study" / "trials" / f"{row.number:04}"
        config = json.loads((folder / "config.json").read_text())
        assert config == {key: row.params[key] for key in KEYS}
        assert row.score == config["learning_rate"] * 2 and sorted(row.epochs) == [1, 2]
        assert row.notes["architecture"] == {"layer0/activation": "relu"}
        assert not (engine.folder / "trials" / f"{row.number:04}").exists()
