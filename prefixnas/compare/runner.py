"""Running a comparison: each cell in a process of its own, none of them twice."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from prefixnas.base import options as config
from prefixnas.base.errors import UserError
from prefixnas.base.files import write_text
from prefixnas.compare.comparison import Cell

PATIENCE = 20.0
"""Seconds to wait until the cells of a comparison that was killed have ended."""


@contextmanager
def alone(out: Path) -> Iterator[int]:
    """Hold the folder of a comparison against another process; yield the lock's descriptor.

    The lock is shared with the cells, so that it lasts until the last of them has ended.

    Raises:
        UserError: Another process holds it.
    """
    with (out / ".lock").open("w") as file:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise UserError(f"{out}: another process is comparing there") from None
                time.sleep(0.1)
        yield file.fileno()


def unfinished(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells that are still to be run."""
    return [cell for cell in cells if cell.refused is None and not cell.finished]


def check_problem(cells: Sequence[Cell]) -> None:
    """Build the problem once, in a process of its own, and try every space of `cells` in it.

    Raises:
        UserError: A model, a task or a space is not usable.
    """
    spaces: dict[str, Cell] = {}
    for cell in cells:
        if cell.needs is None:
            spaces.setdefault(str(cell.values["space"]), cell)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.yaml" for number in range(len(spaces))]
        for file, cell in zip(files, spaces.values(), strict=True):
            write_text(file, config.dump_config(cell.values))
        log = Path(folder) / "log"
        code = _Runner(1).call(["check", *map(str, files)], log) if files else 0
        if code != 0:
            raise UserError(last_error(log, code))


def run_cells(cells: Sequence[Cell], jobs: int, lock: int, say: Callable[[str], None]) -> None:
    """Run all cells that are not finished; one that fails does not stop the others.

    Args:
        cells: All cells of the comparison; one that needs another comes after it.
        jobs: How many run side by side.
        lock: Descriptor of the lock, see `alone`.
        say: Called with a line about each cell that ended.

    """
    waiting = unfinished(cells)
    if waiting and jobs > 1:
        each = threads(jobs).get("OMP_NUM_THREADS") or os.environ["OMP_NUM_THREADS"]
        say(f"{jobs} runs side by side, with {each} threads each, which tells in their seconds")
    runner = _Runner(jobs, lock)
    chains: dict[Path, list[Cell]] = {}
    for cell in waiting:
        chains.setdefault(cell.needs or cell.folder, []).append(cell)
    done = 0
    with ThreadPoolExecutor(jobs) as pool:
        try:
            futures = [pool.submit(runner.run, chain) for chain in chains.values()]
            for future in as_completed(futures):
                for cell, line in future.result():
                    done += 1
                    say(f"[{done}/{len(waiting)}] {cell.name}: {line}")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            runner.stop()
            raise


def beside(cell: Cell, suffix: str) -> Path:
    """Return a file that lies next to a cell's run directory."""
    return cell.folder.with_name(cell.folder.name + suffix)


def notes(cell: Cell) -> dict[str, Any]:
    """Return what is known of a cell from outside of its run: peak memory, or its error."""
    try:
        found = json.loads(beside(cell, ".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


class _Runner:
    """Starts the processes, and stops them."""

    def __init__(self, jobs: int, *locks: int) -> None:
        self._locks = locks
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False
        self._environment = {**os.environ, **threads(jobs)}

    def run(self, chain: Sequence[Cell]) -> list[tuple[Cell, str]]:
        """Run cells one after the other; return what to say of each."""
        said = []
        for cell in chain:
            if self._stopped:
                break
            if cell.needs is not None and not (cell.needs / "result.json").is_file():
                said.append((cell, "left out, its search did not end"))
                continue
            began = time.monotonic()
            error = self._search(cell)
            took = f"{time.monotonic() - began:.0f} s"
            said.append((cell, f"failed: {error}" if error else f"finished in {took}"))
        return said

    def stop(self) -> None:
        """End all processes, and start no other."""
        self._stopped = True
        for process in list(self._running):
            process.kill()

    def _search(self, cell: Cell) -> str | None:
        """Run one cell, from where it stands; return its error."""
        log, file = beside(cell, ".log"), self._write_config(cell)
        begun = (cell.folder / "config.yaml").is_file()
        if not begun and cell.folder.is_dir():
            for name in (".writable", "config.yaml.tmp"):  # killed before its first step
                (cell.folder / name).unlink(missing_ok=True)
        arguments = ["--resume"] if begun else ["--config", str(file)]
        log.unlink(missing_ok=True)
        measured = str(beside(cell, ".json"))
        code = self.call(["search", measured, *arguments, "--out", str(cell.folder)], log)
        file.unlink(missing_ok=True)
        if code == 0:
            return None
        error = last_error(log, code)
        write_text(Path(measured), json.dumps({"error": error}) + "\n")
        return error

    def _write_config(self, cell: Cell) -> Path:
        file = beside(cell, ".yaml")
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, config.dump_config(cell.values))
        return file

    def call(self, arguments: Sequence[str], log: Path) -> int:
        with log.open("ab") as output:
            process = self._start(arguments, output)
            self._running.add(process)
            try:
                return process.wait()
            finally:
                self._running.discard(process)

    def _start(self, arguments: Sequence[str], output: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "prefixnas.commands.cell", *arguments],
            stdin=subprocess.PIPE,  # never written to: it closes when this process ends
            stdout=output,
            stderr=subprocess.STDOUT,
            env=self._environment,
            pass_fds=self._locks,
        )


def threads(jobs: int) -> dict[str, str]:
    """Return the environment that gives each of several runs its share of the cores.

    What is set already stays; a single run takes what it takes by itself.
    """
    name = "OMP_NUM_THREADS"
    if jobs == 1 or name in os.environ:
        return {}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {name: str(max(1, (cores or 1) // jobs))}


def last_error(log: Path, code: int) -> str:
    """Return the line that says what went wrong."""
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    filled = [line.strip() for line in lines if line.strip()]
    errors = [line.removeprefix("error: ") for line in filled if line.startswith("error: ")]
    return (errors or filled or [f"exit code {code}"])[-1]
