"""What the tests themselves promise: a run of them says what it did not run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import ROOT, forked

CONFTEST = """
from tests.summary import Summary

def pytest_configure(config):
    config.addinivalue_line("markers", "slow: not needed at every change")
    config.pluginmanager.register(Summary())
"""
TESTS = """
import pytest

def test_a(): ...

@pytest.mark.slow
@pytest.mark.parametrize("number", range(3))
def test_b(number): ...

@pytest.mark.parametrize("number", range(4))
def test_c(number):
    pytest.skip("no moon" if number else "no sun")

@pytest.mark.skipif(True, reason="no moon")
def test_d(): ...
"""


@pytest.mark.parametrize(("which", "processes"), [("", "0"), ("not slow", "2")])
def test_what_was_not_run_is_said(which: str, processes: str, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(TESTS)
    command = ["-m", "pytest", "-p", "no:cacheprovider", "-n", processes, "-m", which]
    done = forked.run(*command, cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stdout
    said = [line.strip() for line in done.stdout.partition("not run")[2].splitlines()[1:]]
    assert said[:2] == ["4 skipped: no moon", "1 skipped: no sun"]
    left_out = "3 slow ones left out: `make test-all` runs them, too"
    assert said[2:3] == [left_out] if which else left_out not in said


def test_everything_is_run_before_a_change_is_taken() -> None:
    assert "make test-all\n" in (ROOT / ".ci" / "run").read_text()
    targets = (ROOT / "Makefile").read_text().split("\n\n")
    (whole,) = [target for target in targets if "\ntest-all:" in target]
    assert "-m" not in whole
