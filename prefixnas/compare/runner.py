"""Running a comparison: each cell in a process of its own, none of them twice."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from prefixnas.base.files import make_folder, parse_json, write_text
from prefixnas.base.locks import Lock
from prefixnas.base.processes import THREADS, Child, share_of_threads
from prefixnas.compare.cells import Cell
from prefixnas.launch.config import dump_config

PATIENCE = 20.0
"""Seconds to wait until the cells of a comparison that was killed have ended."""

CELL = "prefixnas.commands.cell"
"""The module that runs a cell, by its name: commands stand above comparisons."""


def unfinished(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells that are still to be run, or were killed when they had their result."""
    return [cell for cell in cells if cell.refused is None and not _is_whole(cell)]


def _is_whole(cell: Cell) -> bool:
    """Tell whether a cell wrote everything: its page comes after the result, then its memory."""
    return cell.finished and (cell.folder / "report.html").is_file() and "error" not in notes(cell)


def one_of_each_space(cells: Sequence[Cell]) -> list[Mapping[str, Any]]:
    """Return a configuration for every space of the cells: what a check has to build."""
    spaces: dict[str, Mapping[str, Any]] = {}
    for cell in cells:
        if cell.needs is None:
            spaces.setdefault(str(cell.values["space"]), cell.values)
    return list(spaces.values())


def run_cells(cells: Sequence[Cell], jobs: int, lock: Lock, say: Callable[[str], None]) -> None:
    """Run all cells that are not finished; one that fails does not stop the others.

    Args:
        cells: All cells of the comparison; one that needs another comes after it.
        jobs: How many run side by side.
        lock: The lock of the comparison's folder. The cells hold it, too, so that it lasts until
            the last of them has ended.
        say: Called with a line about each cell that ended.
    """
    waiting = unfinished(cells)
    if waiting and jobs > 1:
        each = share_of_threads(jobs).get(THREADS) or os.environ[THREADS]
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
        found = parse_json(beside(cell, ".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


class _Runner:
    """Starts the processes, and stops them."""

    def __init__(self, jobs: int, lock: Lock) -> None:
        self._lock = lock
        self._running: set[Child] = set()
        self._stopped = False
        self._environment = share_of_threads(jobs)

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
        for child in list(self._running):
            child.stop()

    def _search(self, cell: Cell) -> str | None:
        """Run one cell, from where it stands; return its error."""
        log, file, measured = (beside(cell, suffix) for suffix in (".log", ".yaml", ".json"))
        make_folder(file.parent)
        write_text(file, dump_config(cell.values))
        log.unlink(missing_ok=True)
        begun = (cell.folder / "config.yaml").is_file()
        arguments = ["--resume"] if begun else ["--config", str(file)]
        arguments = [str(measured), *arguments, "--out", str(cell.folder)]
        child = Child(CELL, arguments, log, self._environment, lock=self._lock)
        self._running.add(child)
        try:
            error = child.error() if child.wait() else None
        finally:
            self._running.discard(child)
            child.stop()
        file.unlink(missing_ok=True)
        if error is not None:
            write_text(measured, json.dumps({"error": error}) + "\n")
        return error
