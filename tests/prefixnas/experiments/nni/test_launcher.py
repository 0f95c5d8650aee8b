"""The launcher of a trial: nothing of a process tree is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from prefixnas.experiments.lease import Demand
from tests.prefixnas.experiments.leases import leased
from tests.prefixnas.experiments.nni.waiting import wait_until

TREE = """
import os, subprocess, sys, time
subprocess.Popen(["setsid", "sleep", "600"])  # leaves the session
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
time.sleep(float(os.environ["SECONDS"]))
sys.exit(int(os.environ["CODE"]))
"""

MARK = "PREFIXNAS_TEST_TREE"


def start_launcher(folder: Path, seconds: float, code: int = 0) -> subprocess.Popen[str]:
    settings = folder / "launch.json"
    command = [sys.executable, "-c", TREE]
    data = {"gpus": 1, "share": 1, "indices": [], "leases": str(folder), "command": command}
    settings.write_text(json.dumps(data))
    variables = {"PREFIXNAS_GPUS": "1", "SECONDS": str(seconds), "CODE": str(code)}
    return subprocess.Popen(
        [sys.executable, "-m", "prefixnas.experiments.nni.launcher", str(settings)],
        env={**os.environ, **variables, MARK: str(folder)},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_trials_side_by_side_share_the_cores(tmp_path: Path) -> None:
    """Two trials of all cores each spin for nine minutes where one needs one."""
    settings = tmp_path / "launch.json"
    said = [sys.executable, "-c", "import os; print(os.environ['OMP_NUM_THREADS'])"]
    data = {"gpus": None, "share": 1, "indices": [], "leases": str(tmp_path), "command": said}
    settings.write_text(json.dumps({**data, "concurrency": 3}))
    variables = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-m", "prefixnas.experiments.nni.launcher", str(settings)],
        env=variables,
        capture_output=True,
        text=True,
        check=True,
    )
    cores = len(os.sched_getaffinity(0))
    assert int(done.stdout) == max(1, cores // 3)


def tree_of(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(folder) and process.status() != "zombie":
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def end_launcher(launcher: subprocess.Popen[str]) -> None:
    launcher.send_signal(signal.SIGINT)  # as NNI does


def kill_launcher(launcher: subprocess.Popen[str]) -> None:
    launcher.kill()


def kill_keeper(launcher: subprocess.Popen[str]) -> None:
    psutil.Process(launcher.pid).children()[0].kill()


@pytest.mark.parametrize("how", [end_launcher, kill_launcher, kill_keeper])
def test_nothing_of_a_trial_is_left_and_its_gpu_is_free_again(
    tmp_path: Path, how: Callable[[subprocess.Popen[str]], None]
) -> None:
    launcher = start_launcher(tmp_path, 600)
    assert launcher.stdout is not None and launcher.stdout.readline() == "0\n"
    assert leased(tmp_path, Demand(1), 1) is None
    how(launcher)
    code = launcher.wait(20)
    wait_until(lambda: tree_of(tmp_path) == [])
    assert code == {end_launcher: -signal.SIGINT, kill_launcher: -9, kill_keeper: 137}[how]
    assert leased(tmp_path, Demand(1), 1) == (0,)
    launcher.stdout.close()


def test_the_trials_exit_code_is_the_launchers(tmp_path: Path) -> None:
    launcher = start_launcher(tmp_path, 0, 7)
    output, _ = launcher.communicate(timeout=20)
    assert (launcher.returncode, output) == (7, "0\n")
    assert tree_of(tmp_path) == []
