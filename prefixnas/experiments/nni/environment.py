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

GUARDED = Path(__file__).with_name("guarded.sha256")
"""The files that the guard leans on, as `sha256sum` lists them; with others it refuses to start."""

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
    for line in GUARDED.read_text(encoding="utf-8").splitlines():
        expected, name = line.split()
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
