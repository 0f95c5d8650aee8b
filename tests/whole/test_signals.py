"""Ctrl-C and SIGTERM end every moment of a command in one line, and the run goes on afterwards."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import prefixnas.__main__
from prefixnas.base.console import Terminated, guarded, program
from tests.forked import Forked
from tests.workbench import digest

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


@pytest.fixture(autouse=True)
def _not_ignored() -> Iterator[None]:
    """Take signals as in a terminal: a shell lets what runs in its background ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("error", [None, ImportError("initialization failed"), SystemError("C++")])
def test_whatever_a_library_makes_of_a_signal_it_is_one_line(
    number: signal.Signals, error: Exception | None, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(argv: object) -> int:
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            if error is None:
                raise
            raise error from None
        return 0

    before = [signal.getsignal(each) for each in CODES]
    assert program(command, []) == CODES[number]
    how = "terminated" if number == signal.SIGTERM else "interrupted"
    assert capsys.readouterr().err == (
        f"{how}; the same command goes on, with --resume if it had begun\n"
    )
    assert [signal.getsignal(each) for each in CODES] == before


class Finalised:
    def __init__(self, number: signal.Signals) -> None:
        self.number = number

    def __del__(self) -> None:
        signal.raise_signal(self.number)


def swallowing(number: signal.Signals) -> None:
    with suppress(BaseException):
        signal.raise_signal(number)


@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("loses", [Finalised, swallowing])
def test_a_signal_whose_exception_is_lost_comes_again(
    loses: Callable[[signal.Signals], object],
    number: signal.Signals,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As in callbacks and modules of C++ that are just imported, which takes seconds."""
    reached = []

    def command(argv: object) -> int:
        loses(number)
        for _ in range(1000):
            time.sleep(0.01)
        reached.append("the end")
        return 0

    hook = sys.unraisablehook
    assert program(command, []) == CODES[number]
    assert not reached and sys.unraisablehook is hook
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.endswith("if it had begun\n")


def test_what_cleans_up_after_a_signal_is_left_in_peace() -> None:
    cleaned = []

    @contextmanager
    def place() -> Iterator[None]:
        try:
            yield
        finally:
            time.sleep(0.7)  # longer than a signal that went lost takes to come again
            cleaned.append("with")

    def command(argv: object) -> int:
        try:
            with place():
                signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:
            try:
                time.sleep(0.7)
                raise ValueError from error
            except ValueError:
                time.sleep(0.7)
                cleaned.append("except")
            raise
        return 0

    assert program(command, []) == 130 and cleaned == ["with", "except"]


def test_an_error_in_a_callback_is_shown_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __del__(self) -> None:
            raise ValueError("broken")

    def command(argv: object) -> int:
        Broken()
        return 0

    shown: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: shown.append(lost.exc_type))
    assert program(command, []) == 0 and shown == [ValueError]


def test_an_error_without_a_signal_stays_a_traceback() -> None:
    def command(argv: object) -> int:
        raise ImportError("no such module")

    with pytest.raises(ImportError):
        program(command, [])


def test_one_of_several_processes_is_left_to_its_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")

    def command(argv: object) -> int:
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        return 0

    assert program(command, []) == 0


def test_what_a_command_was_told_is_its_exit_code() -> None:
    def command(argv: object) -> int:
        raise Terminated

    assert guarded(command, []) == 143


def begin(folder: Path, run: Path) -> list[str]:
    given = [
        "--model",
        str(folder / "llama"),
        "--tasks",
        str(folder / "mood"),
        "--baseline",
        "none",
    ]
    return ["search", *given, "--steps", "20", "--checkpoint-every", "3", "--out", str(run)]


@pytest.fixture(scope="module")
def whole(bench: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a run leaves that nothing interrupts."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert prefixnas.__main__.main(begin(bench, run)) == 0
    return digest(run / "adapter")


@pytest.mark.parametrize("number", CODES)
def test_a_run_that_was_ended_by_a_signal_goes_on(
    number: signal.Signals, bench: Path, tmp_path: Path, whole: dict[str, str]
) -> None:
    run, out, err = tmp_path / "run", tmp_path / "out", tmp_path / "err"
    argv = begin(bench, run)
    process = Forked(["-m", "prefixnas", *argv, "--quiet"], out, err)
    events = run / "metrics.jsonl"
    while process.poll() is None and not (
        events.is_file() and events.read_text().count('"step"') > 5
    ):
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait() == CODES[number]
    assert err.read_text().count("\n") == 1
    assert "--resume" in err.read_text()
    assert prefixnas.__main__.main(["search", "--resume", "--out", str(run)]) == 0
    assert digest(run / "adapter") == whole


@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("seconds", [0.8, 2.5])
def test_a_signal_while_everything_is_imported_is_no_traceback(
    number: signal.Signals, seconds: float, bench: Path, tmp_path: Path
) -> None:
    """An interpreter of its own: what tests fork has everything imported already."""
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "prefixnas", *begin(bench, tmp_path / "run")],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    while "prefixnas.base.console" not in process.stderr.readline():
        assert process.poll() is None  # before that, Python itself is being imported
    time.sleep(seconds)
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == CODES[number]
    said = [line for line in err.splitlines() if not line.startswith("import time: ")]
    assert len(said) == 1 and said[0].endswith("if it had begun"), err[-2000:]
