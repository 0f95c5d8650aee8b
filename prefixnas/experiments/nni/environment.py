"""NNI's environment: is it there, is it the one that the guard was written for.

NNI lives best in an environment of its own, which `python -m prefixnas.experiments.nni.environment
FOLDER` sets up. Its Python is looked into from outside, without importing nni: with a wrong
`filelock` the import alone would hang for ever.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prefixnas.base.errors import UserError

VERSION = "3.0"
VARIABLE = "PREFIXNAS_NNI_PYTHON"
"""Names NNI's Python where `--nni-python` does not."""

REQUIREMENTS = (f"nni=={VERSION}", "filelock<3.12", "typeguard>=3,<4.1.3", "numpy>=1.26")
SETUP = "python -m prefixnas.experiments.nni.environment nni-env"

HASHES = {
    "nni_node/main.js": "60111370885579dafbf6576781915d318eb50fe1c22b363c054bbba332e977f2",
    "nni_node/rest_server/index.js": (
        "91ee1863512e18ed8c92de6ff9d9b6c62eb9c2d80d4eac452852491d15a34b91"
    ),
    "nni_node/rest_server/restHandler.js": (
        "6299811d5a8239dc16e667ea4ba0fa33c555657e7bc9769df87c05a9e764cc26"
    ),
    "nni_node/training_service/v3/compat.js": (
        "9334774e798bd14efc5ccc0c78eef8d5fd14f91ead38ab71e9f468cdf9c05e99"
    ),
    "nni_node/core/nnimanager.js": (
        "4f45d543c1f6c65a9712e947e0ebcefb364a354fa07045a961ec5e4f1ba11971"
    ),
    "nni_node/core/tuner_command_channel.js": (
        "ab66be789261f31b26e7fb9605936c4bce6d23c9593dce0bbe556458f27da6b3"
    ),
    "nni_node/training_service/remote_v3/ssh.js": (
        "82a3d6e081d97642a3d31dd8a4550187a22fdf37edfed145431ac1a6951c58d3"
    ),
    "nni_node/training_service/remote_v3/worker.js": (
        "f45b7db4524a85e5ed02c77c659fe9b784c2059f38bffc77600105d93ebba724"
    ),
    "nni_node/rest_server/core.js": (
        "a7202838f2f85068779ce7ecebbdb4cb2f3a537de4cd7c7133a2c0bf0b90c556"
    ),
    "nni_node/common/trial_keeper/main.js": (
        "db14f7b1b9e7908b2cfbeb8d5b4828bc6b922389e207b7759f899a69a3cae731"
    ),
    "nni_node/common/trial_keeper/keeper.js": (
        "fefd98c8e8a8e91be946b8f11dd359f07b9eddfdaa344c9e13dc68774b50a30b"
    ),
    "nni_node/common/trial_keeper/process.js": (
        "237adf5ffcab8f7621116edbfa10c74a5ed87b113251532f59c5dfffc48c9290"
    ),
    "nni_node/common/command_channel/http.js": (
        "569c2b6efa2dcd16776c956b2d7067cccbfa354a2d96d667c585219cd2694b55"
    ),
    "nni_node/common/globals/arguments.js": (
        "de83b6e4545906998bce5f0fe71056dbafe28d1f2d27dcb2a2ed92ea4ad5fbc3"
    ),
    "nni_node/common/globals/rest.js": (
        "2dd90b19e1a46b9958b2ca6d7404418daa6e8a7a67717071409731fadcafd221"
    ),
    "nni/runtime/msg_dispatcher.py": (
        "3feae0e55fe2fa62f90c596096dbc9e7443450505c014e4d5ff399c765011f62"
    ),
    "nni/runtime/msg_dispatcher_base.py": (
        "b68c5fc6e534ca6f2e68a0ed7b55968000007dc0faa396dd3e40f315a3e90058"
    ),
    "nni/__main__.py": "aab0abac2755535aad50cb6f949220c611c1506cfb149aebdc396a3dcd959649",
}
"""The files that the guard leans on, with their SHA-256; with others it refuses to start."""

_LOOK = """
import json, sys, sysconfig
from importlib.metadata import PackageNotFoundError, version
found = {}
for name in ("nni", "filelock"):
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        found[name] = None
print(json.dumps({"python": sys.version_info[:2], "site": sysconfig.get_path("platlib"), **found}))
"""


@dataclass(frozen=True)
class NniEnvironment:
    """A checked environment.

    Attributes:
        python: Its interpreter.
        site: Where its packages lie.
    """

    python: Path
    site: Path

    @property
    def node(self) -> Path:
        """The folder of NNI's manager."""
        return self.site / "nni_node"


def find_environment(python: Path | None) -> NniEnvironment:
    """Find NNI and check it, without importing it.

    Args:
        python: What `--nni-python` names; without it `PREFIXNAS_NNI_PYTHON` counts, then this
            interpreter.

    Raises:
        UserError: No such Python, no NNI, another version than 3.0, changed files, a `filelock`
            that would make it hang.
    """
    named = python or Path(os.environ.get(VARIABLE) or sys.executable)
    try:
        # Isolated, so that nothing in the working directory is taken for a package.
        done = subprocess.run(
            [str(named), "-I", "-c", _LOOK], capture_output=True, text=True, timeout=60
        )
        found = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        raise UserError(f"{named}: cannot be run as a Python; see --nni-python") from error
    if found["nni"] is None:
        raise UserError(
            f"{named}: NNI is not installed there: set it up with `{SETUP}`, "
            "then name its Python: --nni-python nni-env/bin/python"
        )
    if found["nni"] != VERSION:
        raise UserError(f"{named}: NNI {found['nni']}; the guard is for NNI {VERSION} alone")
    if tuple(found["python"]) >= (3, 14):
        raise UserError(f"{named}: NNI {VERSION} does not run on Python 3.14; take 3.11 to 3.13")
    if found["filelock"] is None or _numbers(found["filelock"]) >= (3, 12):
        raise UserError(
            f"{named}: filelock {found['filelock']} makes NNI hang: install 'filelock<3.12' there"
        )
    environment = NniEnvironment(named, Path(found["site"]))
    _check_files(environment)
    return environment


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def _check_files(environment: NniEnvironment) -> None:
    for name, expected in HASHES.items():
        path = environment.site / name
        try:
            actual = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from error
        if actual != expected:
            raise UserError(
                f"{path}: is not as in NNI {VERSION}; the guard leans on it and will not start"
            )


def set_up(folder: Path) -> Path:
    """Make an environment with NNI in it; return its Python."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
    return find_environment(python).python


def main(argv: Sequence[str]) -> int:
    """Set an environment up in the folder that is named."""
    if len(argv) != 1 or argv[0].startswith("-"):
        raise UserError(f"one folder is needed: {SETUP}")
    print(f"NNI's Python: {set_up(Path(argv[0]))}")
    return 0


if __name__ == "__main__":
    from prefixnas.base.console import guarded

    sys.exit(guarded(main, None))
