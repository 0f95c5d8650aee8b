"""One process at a time works on a folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from prefixnas.base.errors import UserError
from prefixnas.base.locks import alone


def test_the_second_one_is_told_of_the_first(tmp_path: Path) -> None:
    with alone(tmp_path, "is counting"):
        expected = f"process {os.getpid()} is counting there already"
        with pytest.raises(UserError, match=expected), alone(tmp_path, "is reading"):
            pass
    with alone(tmp_path, "is reading"):
        pass


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from prefixnas.base.locks import alone\n"
        "with alone(Path(sys.argv[1]), 'is dying'): os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    with alone(tmp_path, "is reading"):
        pass
