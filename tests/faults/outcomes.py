"""What comes of a fault: commands are run to their ends, and what they left is judged."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

from tests.faults.commands import Command, Result, commands, prepare
from tests.faults.layer import Fault
from tests.forked import Forked

ROOT = Path(__file__).parents[2]

LIMIT = 60.0
"""Seconds after which a command counts as hanging."""

LINE = 320
"""Characters of a message with `error: ` in front and its end of line, at most."""


class Outcome(StrEnum):
    """What came of a fault in the end; all but the first three are faults of the program."""

    IDENTICAL = "identical"
    READ = "read"
    REFUSED = "refused in one line"
    DIFFERENT = "different"
    LOST = "lost"
    DEAD_END = "dead ends"
    TRACEBACK = "tracebacks"
    HANG = "hangs"


GOOD = (Outcome.IDENTICAL, Outcome.READ, Outcome.REFUSED)


@dataclass(frozen=True)
class Verdict:
    """An outcome, and why."""

    outcome: Outcome
    why: str = ""

    @property
    def good(self) -> bool:
        return self.outcome in GOOD


@dataclass(frozen=True)
class End:
    """How a command ended.

    Attributes:
        code: Its exit code; None: it hung, and was killed.
        said: What it wrote on standard error, without warnings.
    """

    code: int | None
    said: str

    @property
    def refused(self) -> bool:
        """Whether it ended with one line that says why; or a comparison, with one for each run."""
        lines = self.said.splitlines()
        error = len(lines) == 1 and lines[0].startswith("error: ")
        failed = bool(lines) and all(line.startswith("failed: ") for line in lines)
        return self.code in (1, 2) and (error or failed) and max(map(len, lines)) <= LINE

    def fault(self) -> Verdict | None:
        """Return what is wrong with this end by itself."""
        if self.code is None:
            return Verdict(Outcome.HANG, self.said[-300:])
        if "Traceback" in self.said or (self.code in (1, 2) and not self.refused):
            return Verdict(Outcome.TRACEBACK, self.said[-1000:])
        return None


class Place:
    """A folder in which commands are run, one at a time, and what they leave without a fault.

    Args:
        folder: An empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        prepare(self.folder)
        self.out, self._log = self.folder / "work" / "out", self.folder / "operations"
        self.commands = commands(self.folder)
        self._whole: dict[str, tuple[Result, list[str]]] = {}
        search = self.commands["search"]
        self.whole(search)
        kept = self.folder / "kept" / "run"  # as deep as `out`: an adapter's model is beside it
        kept.parent.mkdir()
        self.out.rename(kept)

    def run(
        self, program: str, argv: Sequence[str], fault: Fault | None = None, limit: float = LIMIT
    ) -> End:
        """Run a command to its end, on the faulty layer if there is a fault to come."""
        process = self.begin(program, argv, fault)
        return self.end(process, limit)

    def begin(self, program: str, argv: Sequence[str], fault: Fault | None = None) -> Forked:
        """Start a command."""
        for path in (self._log, self._said):
            path.unlink(missing_ok=True)
        argv = [*argv, "--quiet"]
        arguments = ["-m", program, *argv]
        if fault is not None:
            watched, log = str(self.out.parent), str(self._log)
            arguments = ["-m", "tests.faults.layer", str(fault), watched, log, program, *argv]
        return Forked(arguments, self.folder / "output", self._said, cwd=ROOT)

    def end(self, process: Forked, limit: float = LIMIT) -> End:
        """Wait for a command's end, and for that of what it started."""
        deadline = time.monotonic() + limit
        while (code := process.poll()) is None and time.monotonic() < deadline:
            time.sleep(0.005)
        if code is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
        lines = self._said.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        return End(code, "".join(line for line in lines if not line.startswith("warning: ")))

    def whole(self, command: Command) -> tuple[Result, list[str]]:
        """Return what a command leaves without a fault, and its operations; run once."""
        if command.name not in self._whole:
            command.clear(self.out)
            end = self.run(command.program, command.first, Fault())
            assert end.code == 0, end.said
            operations = self._log.read_text(encoding="utf-8").splitlines()
            self._whole[command.name] = command.result(self.out), operations
        return self._whole[command.name]

    def try_fault(self, command: Command, fault: Fault) -> Verdict:
        """Let a fault happen to a command, let it go on without one, and judge."""
        whole, _ = self.whole(command)
        command.clear(self.out)
        end = self.run(command.program, command.first, fault)
        return end.fault() or self.goes_on(command, whole)

    def cases(
        self, command: Command, faults: Sequence[Fault]
    ) -> list[tuple[str, Callable[[], Verdict]]]:
        """Return a name and an attempt for each fault of a command."""
        return [(str(fault), partial(self.try_fault, command, fault)) for fault in faults]

    def goes_on(self, command: Command, whole: Result) -> Verdict:
        """Go on with what a fault left: resumed, or where there is nothing to resume, anew."""
        end = self.run(command.program, command.again)
        if end.refused and self.judged(command, whole).good:
            return Verdict(Outcome.REFUSED, end.said)  # everything is there already
        if end.refused and command.first != command.again:
            said, end = end.said, self.run(command.program, command.first)
            if end.refused:
                return Verdict(Outcome.DEAD_END, said + end.said)
        if wrong := end.fault():
            return wrong
        if end.code != 0:
            return Verdict(Outcome.DEAD_END, f"exit code {end.code}: {end.said}")
        return self.judged(command, whole)

    def judged(self, command: Command, whole: Result) -> Verdict:
        """Compare what is there with what the command leaves without a fault."""
        if left := sorted(path.name for path in self.out.parent.iterdir() if path != self.out):
            return Verdict(Outcome.DIFFERENT, f"left beside it: {left}")
        return compared(whole, command.result(self.out) if self.out.is_dir() else {})

    @property
    def _said(self) -> Path:
        return self.folder / "said"


def compared(whole: Result, found: Result) -> Verdict:
    """Compare what a command left with what it leaves without a fault."""
    if missing := sorted(set(whole) - set(found)):
        return Verdict(Outcome.LOST, f"missing: {missing}")
    if more := sorted(set(found) - set(whole)):
        return Verdict(Outcome.DIFFERENT, f"left over: {more}")
    other = sorted(name for name in whole if whole[name] != found[name])
    return (
        Verdict(Outcome.DIFFERENT, f"not equal: {other}") if other else Verdict(Outcome.IDENTICAL)
    )
