"""Python as a process of its own, without the seconds that it takes to import everything.

A server imports what commands import, and computes nothing. What is started here is a fork of it,
and what that starts with this interpreter (the workers of a study, the ranks of a run, the cells of
a comparison) is a fork in turn. Process numbers, signals, pipes, locks, exit codes and output are
real. Tests of what is imported, of hash seeds and of the interpreter's start begin with a new one.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from inspect import signature
from pathlib import Path
from typing import Any, NoReturn

from tests.plots import left_out

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        "accelerate.commands.launch",
        "datasets",
        "optuna.importance",
        "optuna.visualization.matplotlib",
        "peml.objective.config",
        "peml.objective.objective",
        "prefixnas.commands.cell",
        "prefixnas.experiments.study_report",
        "prefixnas.experiments.tune",
        "prefixnas.experiments.view",
        "prefixnas.experiments.worker",
        "prefixnas.launch.start",
        "prefixnas.report.run_page",
        "prefixnas.run.search",
        "prefixnas.strategies.tpe",
        "prefixnas.strategies.two_stage",
        "prefixnas.testing",
        "rich.console",
        "sklearn.metrics",
        "torch._dynamo",
        "torch.distributed.run",
        "transformers.models.bert.modeling_bert",
        "transformers.models.llama.modeling_llama",
        "transformers.models.t5.modeling_t5",
    ]
)

STREAMS = (0, 1, 2)


class Forked:
    """`python ARGUMENTS...` as a process.

    Args:
        arguments: What Python is given: `-m` and a module, `-c` and code, or a script; and what
            these are given.
        out: Where standard output goes, behind what is there.
        err: Where standard error goes.
        cwd: Where it runs; here if not given.
        variables: Variables of the environment beside those of this process; one thread if they
            say nothing else.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        out: Path,
        err: Path | None = None,
        *,
        cwd: Path | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **(variables or {})}
        files = (str(out), str(err or out))
        for file in files:
            Path(file).touch()
        given = (list(arguments), str(cwd or Path.cwd()), environment, files)
        self._process = SERVER.Process(target=_begin, args=given)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Return its exit code, -N where signal N ended it; None while it runs."""
        return self._process.exitcode

    def wait(self, seconds: float = 240) -> int:
        """Wait for its end; return its exit code."""
        self._process.join(seconds)
        code = self._process.exitcode
        assert code is not None, f"still at work after {seconds} seconds"
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)


def run(
    *arguments: str, cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run `python ARGUMENTS...` to its end, as `subprocess.run` does."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        code = Forked(arguments, out, err, cwd=cwd, variables=variables).wait()
        return subprocess.CompletedProcess(arguments, code, out.read_text(), err.read_text())


# In the process that was forked


def _begin(
    arguments: list[str], cwd: str, environment: Mapping[str, str], files: tuple[str, str]
) -> NoReturn:
    for stream, file in zip(STREAMS[1:], files, strict=True):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), stream)
    subprocess.Popen._execute_child = _fork  # type: ignore[attr-defined]
    with left_out():
        _become(arguments, cwd, environment)


_execute = subprocess.Popen._execute_child  # type: ignore[attr-defined]
_NAMES = tuple(signature(_execute).parameters)


def _fork(popen: Any, *given: Any) -> None:
    """Fork where `subprocess.Popen` would start this interpreter anew."""
    asked = dict(zip(_NAMES, (popen, *given), strict=True))
    program, *arguments = map(os.fsdecode, asked["args"])
    if program != sys.executable:
        _execute(popen, *given)
        return
    pipes = [asked[name] for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite")]
    pipes += [asked["errread"], asked["errwrite"]]
    ready, done = os.pipe()
    popen.pid = os.fork()
    if popen.pid == 0:
        try:
            _take_over(asked)  # and closes `done`
            _become(arguments, asked["cwd"] or str(Path.cwd()), asked["env"] or os.environ)
        finally:
            os._exit(1)
    os.close(done)
    os.read(ready, 1)  # ends when the other process has its streams and its session
    os.close(ready)
    popen._child_created = True
    popen._close_pipe_fds(*pipes)


def _take_over(asked: Mapping[str, Any]) -> None:
    """Take the streams, the session and the open files that a new program would have."""
    streams = zip(STREAMS, ("p2cread", "c2pwrite", "errwrite"), strict=True)
    for stream, name in streams:
        if asked[name] != -1:
            os.dup2(asked[name], stream)
    if asked["start_new_session"]:
        os.setsid()
    kept = {*STREAMS, *asked["pass_fds"]}
    for number in [int(name) for name in os.listdir("/dev/fd")]:  # noqa: PTH208
        with suppress(OSError):  # that of the listing is closed
            if number not in kept and (asked["close_fds"] or not os.get_inheritable(number)):
                os.close(number)


def _become(arguments: Sequence[str], cwd: str, environment: Mapping[str, str]) -> NoReturn:
    """Do what Python does with its arguments, and end."""
    import torch

    code = 1
    try:
        for name in ("SIGTERM", "SIGHUP", "SIGQUIT"):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(cwd)
        variables = dict(environment)
        os.environ.clear()
        os.environ.update(variables)
        tempfile.tempdir = None
        torch.set_num_threads(int(variables.get("OMP_NUM_THREADS", "1")))
        sys.path[:0] = [cwd, *filter(None, variables.get("PYTHONPATH", "").split(os.pathsep))]
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", 1, encoding="utf-8", closefd=False)  # noqa: SIM115
        code = _exit_code(arguments)
        sys.stdout.flush()
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
        sys.stdout.flush()
    finally:
        os._exit(code)


def _exit_code(arguments: Sequence[str]) -> int:
    try:
        _execute_arguments([argument for argument in arguments if argument != "-u"])
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _execute_arguments(arguments: Sequence[str]) -> None:
    how, *rest = arguments
    warnings.simplefilter("ignore", RuntimeWarning)  # of `runpy`: the module is there already
    if how == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif how == "-c":
        sys.argv = [how, *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = [how, *rest]
        runpy.run_path(how, run_name="__main__")
