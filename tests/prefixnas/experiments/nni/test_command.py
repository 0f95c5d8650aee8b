"""`prefixnas experiment` as it is typed, with NNI itself: whatever ends it leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from prefixnas.experiments.nni.environment import VARIABLE
from prefixnas.experiments.nni.manager import STATE, inside, last_manager
from prefixnas.experiments.nni.processes import processes_of
from tests.prefixnas.experiments.nni.waiting import free_port, wait_until

pytestmark = [
    pytest.mark.nni,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        VARIABLE not in os.environ,
        reason=f"{VARIABLE} names no Python with NNI; docs/nni.md says how to set one up",
    ),
]


@dataclass(frozen=True)
class Shell:
    """A terminal with an experiment of short searches on the embedded suite."""

    file: Path
    out: Path

    def start(self, action: str, *flags: str) -> subprocess.Popen[str]:
        """Start a command, as a terminal does: Ctrl-C is heard."""
        code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        code += "from prefixnas.__main__ import main; sys.exit(main())"
        return subprocess.Popen(
            [
                sys.executable,
                "-c",
                code,
                "experiment",
                action,
                self.file,
                "--out",
                self.out,
                *flags,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, action: str, *flags: str) -> tuple[int, str, str]:
        """Run a command; return its exit code and what it said."""
        process = self.start(action, *flags)
        out, error = process.communicate(timeout=300)
        return process.returncode, out, error

    def states(self) -> list[str]:
        """Return the states of the trials."""
        table = self.out.parent / "trials.json"
        assert self.run("export", "--to", str(table))[0] == 0
        return [row["state"] for row in json.loads(table.read_text())]

    @property
    def trials(self) -> list[Path]:
        """Run directories of trials that train."""
        return list(self.out.glob("trials/*/config.yaml"))


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    data = {
        "name": "typed",
        "base": {"strategy": "fixed", "steps": 200, "eval_every": 20},
        "hyperparameters": {"learning_rate": {"loguniform": [1.0e-3, 2.0e-2]}},
        "trials": 2,
        "nni": {"concurrency": 2, "port": free_port()},
    }
    file = tmp_path / "typed.yaml"
    file.write_text(yaml.safe_dump(data))
    return Shell(file, tmp_path / "study")


@pytest.mark.parametrize("when", ["starting", "training"])
def test_ctrl_c_leaves_nothing_running(shell: Shell, when: str) -> None:
    process = shell.start("start", "--wait")
    state = inside(shell.out) / STATE
    wait_until(state.is_file if when == "starting" else lambda: len(shell.trials) == 2)
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error.count("\n")) == (130, 1) and "interrupted" in error
    assert processes_of(shell.out) == []
    if when == "training":
        assert shell.states() == ["cut off", "cut off"]
        code, _, error = shell.run("start")
        assert code == 2 and "use resume" in error and error.count("\n") == 1


def test_a_killed_manager_leaves_the_trials_to_those_who_wait(shell: Shell) -> None:
    process = shell.start("start", "--wait")
    wait_until(lambda: len(shell.trials) == 2)
    manager = last_manager(shell.out)
    assert manager is not None and manager.process is not None
    manager.process.kill()
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2 and error.count("\n") == 1 and "manager is gone" in error
    assert len(processes_of(shell.out)) >= 2  # the trials go on
    wait_until(lambda: processes_of(shell.out) == [])
    assert shell.states() == ["finished", "finished"]
    code, _, error = shell.run("resume", "--wait")
    assert (code, error) == (0, "")
    assert shell.states() == ["complete", "complete"] and processes_of(shell.out) == []


def test_one_experiment_is_started_once(shell: Shell) -> None:
    both = [shell.start("start"), shell.start("start", "--port", str(free_port()))]
    errors = sorted(process.communicate(timeout=120)[1] for process in both)
    assert sorted(process.returncode for process in both) == [0, 2]
    assert errors[0] == "" and errors[1].count("\n") == 1 and str(shell.out) in errors[1]
    code, out, error = shell.run("status")
    assert code == 0 and "NNI: RUNNING" in out and error == ""
    code, out, _ = shell.run("stop")
    assert code == 0 and out.startswith("processes ended: ") and processes_of(shell.out) == []
    assert shell.run("stop")[:2] == (0, "nothing was running\n")
