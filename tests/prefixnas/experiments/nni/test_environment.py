"""The Python that NNI runs in, and ports that the network can reach."""

from __future__ import annotations

import json
import socket
import stat
from pathlib import Path
from typing import Any

import psutil
import pytest

from prefixnas.base.errors import UserError
from prefixnas.experiments.nni import environment
from prefixnas.experiments.nni.environment import find_environment
from prefixnas.experiments.nni.sockets import check_port, open_to_network


def python_that_says(folder: Path, **found: Any) -> Path:
    """Write a stand-in for a Python that reports these versions."""
    path = folder / "python"
    said = {"python": [3, 11], "site": str(folder), "nni": "3.0", "filelock": "3.11.0", **found}
    path.write_text(f"#!/bin/sh\necho '{json.dumps(said)}'\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"nni": None}, "NNI is not installed there: set it up with `python -m prefixnas"),
        ({"nni": "2.10"}, "NNI 2.10; the guard is for NNI 3.0 alone"),
        ({"filelock": "3.20.3"}, "filelock 3.20.3 makes NNI hang"),
        ({"filelock": "4.2"}, "install 'filelock<3.12' there"),
        ({"python": [3, 14]}, "does not run on Python 3.14"),
        ({}, "main.js: cannot be read"),
    ],
)
def test_an_environment_that_would_not_do_is_one_line(
    tmp_path: Path, found: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as error:
        find_environment(python_that_says(tmp_path, **found))
    assert "\n" not in str(error.value)


def test_changed_files_are_refused(tmp_path: Path) -> None:
    for line in environment.GUARDED.read_text().splitlines():
        path = tmp_path / line.split()[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("// changed")
    with pytest.raises(UserError, match=r"is not as in NNI 3\.0; the guard leans on it"):
        find_environment(python_that_says(tmp_path))


def test_no_python_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be run as a Python"):
        find_environment(tmp_path / "nothing")


def test_listeners_that_the_network_can_reach_are_found() -> None:
    me = psutil.Process()
    with socket.socket() as inside, socket.socket() as outside:
        inside.bind(("127.0.0.1", 0))
        inside.listen()
        assert open_to_network([me]) == []
        with pytest.raises(UserError, match=r"cannot be taken .*--port"):
            check_port("127.0.0.1", inside.getsockname()[1])
        outside.bind(("0.0.0.0", 0))
        outside.listen()
        assert open_to_network([me]) == [f"0.0.0.0:{outside.getsockname()[1]}"]
