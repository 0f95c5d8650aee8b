"""Processes end with those that they belong to, and say in one line what went wrong."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from prefixnas.base.locks import try_lock
from prefixnas.base.processes import Child

MODULE = """
import sys, time
from prefixnas.base.processes import end_when_orphaned, end_with_parent, first_line_of_input
print("line", first_line_of_input().decode().strip(), flush=True)
{"orphan": end_when_orphaned, "child": end_with_parent}[sys.argv[1]]()
if sys.argv[2] == "wait":
    time.sleep(60)
print("error: too little of it", file=sys.stderr)
print("something else")
sys.exit(int(sys.argv[2]))
"""

PARENT = """
import sys, time
from pathlib import Path
from prefixnas.base.processes import Child
child = Child("stub", [sys.argv[1], "wait"], Path("log"), first_line=b"hello")
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def _stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stub.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)


def written(log: Path) -> str:
    """Wait until a process has begun to write."""
    deadline = time.monotonic() + 60
    while not (log.is_file() and log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return log.read_text()


@pytest.mark.parametrize("kind", ["child", "orphan"])
def test_it_ends_with_a_parent_that_is_killed(kind: str, tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, kind], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    assert written(tmp_path / "log") == "line hello\n"
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    child.wait(timeout=60)


@pytest.mark.parametrize(("code", "said"), [("2", "too little of it"), ("0", "too little of it")])
def test_the_line_that_says_what_went_wrong(code: str, said: str, tmp_path: Path) -> None:
    child = Child("stub", ["child", code], tmp_path / "new" / "log", first_line=b"x")
    assert (child.wait(), child.error()) == (int(code), said)
    child.stop()


def test_a_child_that_is_stopped(tmp_path: Path) -> None:
    child = Child(
        "stub", ["child", "wait"], tmp_path / "log", {"PYTHONUNBUFFERED": "1"}, first_line=b"x"
    )
    assert child.poll() is None
    child.stop()
    assert (child.poll(), child.error()) == (-signal.SIGKILL, "ended by SIGKILL")


def test_a_lock_lasts_as_long_as_the_child(tmp_path: Path) -> None:
    lock = try_lock(tmp_path / "lock")
    assert lock is not None
    child = Child("stub", ["child", "wait"], tmp_path / "log", first_line=b"x", lock=lock)
    lock.release()
    assert try_lock(tmp_path / "lock") is None
    child.stop()
    free = try_lock(tmp_path / "lock")
    assert free is not None
    free.release()
