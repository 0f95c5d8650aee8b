"""Mutated files: a reader gives a result or one line, and writes nothing else."""

from __future__ import annotations

import gc
import os
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from prefixnas.base.errors import LINE, UserError, one_line
from tests.faults.outcomes import LIMIT, Outcome, Verdict
from tests.faults.readers import CORPUS, Reader, mutations


class Hung(BaseException):
    """A reader took longer than `LIMIT`."""


def attempt(reader: Reader, data: bytes) -> Verdict:
    """Read a mutated file, and put the whole one back."""
    whole = reader.file.read_bytes()
    beside = {path: path.read_bytes() for path in _beside(reader)}
    reader.file.write_bytes(data)
    try:
        reader.mended()
        return _judged(reader)
    finally:
        for path, content in {**beside, reader.file: whole}.items():
            path.write_bytes(content)


def _beside(reader: Reader) -> list[Path]:
    """Return the manifest, which `mended` writes."""
    return [
        path
        for path in (reader.file.parent.parent / "peml.json", reader.file.parent / "peml.json")
        if path.is_file()
    ]


def _judged(reader: Reader) -> Verdict:
    with _said() as said, _alarm():
        try:
            reader.read()
        except (UserError, OSError) as error:  # as `guarded` prints them
            if isinstance(error, OSError) and not error.filename:
                return Verdict(Outcome.TRACEBACK, _where(error))
            text = one_line(str(error))
            if not text or len(text) > LINE:
                return Verdict(Outcome.TRACEBACK, f"message: {text}")
            verdict = Verdict(Outcome.REFUSED, text)
        except Hung:
            return Verdict(Outcome.HANG)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            return Verdict(Outcome.TRACEBACK, _where(error))
        else:
            verdict = Verdict(Outcome.READ)
    if verdict.outcome == Outcome.REFUSED and said:
        return Verdict(Outcome.TRACEBACK, f"lines in front: {said[0][:500]}")
    return verdict


def _where(error: BaseException) -> str:
    """Say where an exception came from: the project's own lines."""
    import traceback

    frames = [
        f"{Path(frame.filename).name}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
    ]
    return f"{type(error).__name__}: {str(error)[:200]} ({' > '.join(frames[-8:])})"


@contextmanager
def _said() -> Iterator[list[str]]:
    """Take down what is written on standard error meanwhile, by Python or by others."""
    said: list[str] = []
    sys.stderr.flush()
    kept, file = os.dup(2), os.memfd_create("said")
    os.dup2(file, 2)
    before, sys.stderr = sys.stderr, open(2, "w", closefd=False)  # noqa: SIM115
    try:
        yield said
    finally:
        sys.stderr.flush()
        sys.stderr = before
        os.dup2(kept, 2)
        if text := os.pread(file, 4000, 0).decode("utf-8", "replace"):
            said.append(text)
        os.close(kept)
        os.close(file)


@contextmanager
def _alarm() -> Iterator[None]:
    def hung(number: int, frame: object) -> None:
        raise Hung

    before = signal.signal(signal.SIGALRM, hung)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def fuzz(reader: Reader, examples: int, start: int, found: Path) -> Counter[Outcome]:
    """Read mutated files of one kind; the faults' files go to a folder.

    Args:
        reader: The kind.
        examples: How many.
        start: The seed.
        found: Where files are kept that were a fault.
    """
    whole, tally, kinds = reader.file.read_bytes(), Counter[Outcome](), set[str]()
    current = found / "current"
    found.mkdir(parents=True, exist_ok=True)

    def note(mutation: Any) -> None:
        data = mutation(whole)
        current.write_bytes(data)  # which is left if the process ends in it
        verdict = attempt(reader, data)
        tally[verdict.outcome] += 1
        kind = verdict.why.partition(":")[0] + verdict.why.rpartition(" > ")[2]
        if not verdict.good and kind not in kinds:
            kinds.add(kind)
            (found / f"{reader.name} {len(kinds)}{reader.file.suffix}").write_bytes(data)
            print(f"{reader.name}: {verdict.outcome}: {verdict.why}", flush=True)

    with warnings.catch_warnings():
        settled = settings(
            max_examples=examples,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        seed(start)(settled(given(mutations(reader.file.name))(note)))()
    current.unlink()
    gc.collect()
    return tally


def corpus(reader: Reader) -> list[Path]:
    """Return the files that once were a fault of a reader."""
    folder = CORPUS / reader.name.replace(" ", "-")
    return sorted(folder.iterdir()) if folder.is_dir() else []
