"""What a run has done so far: steps by stage, notes, finished loops; kept in its checkpoint.

On resume the program of a run is executed from its start again. The ledger says what is in the
past: a note is there already, a finished loop is skipped, the loop that was interrupted gets its
state back and goes on.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch

from prefixnas.base.errors import UserError
from prefixnas.base.files import writing
from prefixnas.run.checkpoint import (
    PREVIOUS,
    STATE,
    Packed,
    Stateful,
    go_back,
    load_checkpoint,
    noted,
    save_tensors,
    write_state,
)
from prefixnas.run.ranks import Ranks

T = TypeVar("T")

_WHOLE = ""
"""The name of no stage."""


class BudgetExceeded(RuntimeError):
    """A strategy asked for more search steps than its budget holds."""


class Ledger:
    """The steps, notes and loops of one run, with rank 0's checkpoint of them.

    Args:
        folder: The run directory.
        ranks: The processes that train together; rank 0 alone writes.
        every: Steps between two checkpoints.
        resume: Go on from the checkpoint in `folder`.

    Attributes:
        epochs: Epochs that were told of.
        looping: Whether a loop is between its steps, so that its next checkpoint holds the notes.
        damage: What was wrong with the last checkpoint, where the one before it was taken.

    Raises:
        UserError: What is in the folder cannot be gone on with.
    """

    def __init__(self, folder: Path, ranks: Ranks, every: int, resume: bool) -> None:
        self.every, self.epochs, self.looping, self.damage = every, 0, False, ""
        self._checkpoint, self._events = folder / "checkpoint", folder / "metrics.jsonl"
        self._folder, self._ranks = folder, ranks
        self._notes: dict[str, Any] = {}
        self._finished: list[str] = []
        self._asked: set[str] = set()
        self._entered: set[str] = set()
        self._spent = {_WHOLE: 0}
        self._stage = _WHOLE
        self._prices: dict[str, float] = {}
        self._restored: dict[str, Any] = {}
        self._packed = _packed({})
        self._written: tuple[Packed, str] | None = None
        if resume and self._begun():
            self._restore()
            ranks.wait()  # until all have read what rank 0 will overwrite
        elif ranks.first:  # once there are events there is a checkpoint, or it was lost
            for name in (PREVIOUS, STATE):
                (self._checkpoint / name).unlink(missing_ok=True)
            with writing(self._events):
                self._events.write_text("", encoding="utf-8")
            self.save()

    # Steps

    @property
    def spent(self) -> int:
        """Search steps that were taken; a stage's count by its price, rounded up."""
        if self._stage:
            return self._spent[self._stage]
        return self._spent[_WHOLE] + sum(
            priced(price, self._spent[name]) for name, price in self._prices.items()
        )

    def count(self, steps: int) -> None:
        """Add search steps to the current stage."""
        self._spent[self._stage] += steps

    @contextmanager
    def stage(self, name: str, price: float, steps: int, budget: int) -> Iterator[None]:
        """Count `steps` steps apart, then for `price` each within `budget`; see `Run.stage`."""
        if self._stage:
            raise ValueError(f"stage {name!r} begins within stage {self._stage!r}")
        if name in self._prices:
            raise ValueError(f"the stage {name!r} is entered twice in one run")
        self._spent.setdefault(name, 0)
        if self.spent + priced(price, steps) > budget:
            raise BudgetExceeded(f"stage {name!r} goes beyond the search budget of {budget} steps")
        self._stage = name
        try:
            yield
        finally:
            self._stage, self._prices[name] = _WHOLE, price

    def scoped(self, name: str) -> str:
        """Return `name` with the current stage in front."""
        return f"{self._stage} {name}" if self._stage else name

    # Notes

    def once(self, name: str, make: Callable[[], T]) -> T:
        """Return `make()`, a JSON value, and note it; see `Run.once`."""
        name = self.scoped(name)
        if name in self._asked:
            raise ValueError(f"the note {name!r} is asked for twice in one run")
        self._asked.add(name)
        if name not in self._notes:
            with torch.random.fork_rng(self._ranks.random_devices()):
                self._notes[name] = self._ranks.carry_out(make)
            if not self.looping:
                self.save()
        value: T = self._notes[name]
        return value

    # Loops

    def enter(self, phase: str, parts: Mapping[str, Stateful]) -> tuple[int, bool]:
        """Return where a loop starts, and whether it is over; restores its state if it is due."""
        phase = self.scoped(phase)
        if phase in self._entered:
            raise ValueError(f"the phase {phase!r} is entered twice in one run")
        self._entered.add(phase)
        saved = self._restored
        if saved.get("phase") == phase:
            for name, part in parts.items():
                part.load_state_dict(saved["parts"][name])
            torch.set_rng_state(saved["rng"])
            if torch.cuda.is_available() and "cuda" in saved:
                self._ranks.set_cuda_rng(saved["cuda"])
            return int(saved["step"]), phase in self._finished
        return 0, phase in self._finished

    def mark(self, phase: str, step: int, parts: Mapping[str, Stateful], finished: bool) -> None:
        """Take down where a loop stands, with the state of all that it changes."""
        phase = self.scoped(phase)
        if finished:
            self._finished.append(phase)
        if not self._ranks.first:
            return
        states = {name: part.state_dict() for name, part in parts.items()}
        position = {"phase": phase, "step": step, "parts": states, "rng": torch.get_rng_state()}
        if torch.cuda.is_available():
            position["cuda"] = self._ranks.cuda_rng()
        self._packed = _packed(position)
        self._restored = {}

    # Checkpoints

    def save(self) -> None:
        """Write a checkpoint of what is known now."""
        self.write(self.snapshot())

    def snapshot(self) -> dict[str, Any]:
        """Return what `write` takes, to be written later."""
        if not self._ranks.first:
            return {}
        return {
            "position": self._packed,
            "notes": copy.deepcopy(self._notes),
            "finished": [*self._finished],
            "spent": self._spent[_WHOLE],
            "stages": {name: spent for name, spent in self._spent.items() if name},
            "epochs": self.epochs,
            "metrics_bytes": self._events.stat().st_size,
        }

    def write(self, state: Mapping[str, Any]) -> None:
        """Write a snapshot as the checkpoint."""
        if not self._ranks.first:
            return
        position: Packed = state["position"]
        if self._written is None or self._written[0] is not position:  # many notes at one position
            self._written = position, save_tensors(self._checkpoint, position.tensors)
        rest = Packed({key: value for key, value in state.items() if key != "position"})
        if rest.tensors:
            raise TypeError("a note cannot hold a tensor")
        write_state(self._checkpoint, {"position": position.plain, **rest.plain}, self._written[1])

    def _begun(self) -> bool:
        events = self._events.stat().st_size if self._events.is_file() else 0
        return bool(events) or (self._checkpoint / STATE).is_file()

    def _restore(self) -> None:
        state = load_checkpoint(self._checkpoint)
        if state is None:
            raise UserError(
                f"{self._checkpoint / STATE}: missing, so there is nothing to go on from; begin "
                "again with another --out"
            )
        self._restored = state["position"]
        self._notes = state["notes"]
        self._finished = state["finished"]
        self._spent = {_WHOLE: state["spent"], **state.get("stages", {})}
        self._packed = _packed(self._restored)
        self.epochs = state.get("epochs", 0)
        if self._ranks.first:
            kept_events(self._folder)
            self.damage = go_back(self._checkpoint)


def _packed(position: Mapping[str, Any]) -> Packed:
    """Pack where a loop stands: the live weights move on, what is written later must not."""
    return Packed(position, ["position"])


def kept_events(folder: Path) -> int:
    """Cut a run's events off where its checkpoint was written; return the bytes that are left.

    Raises:
        UserError: There are fewer events than the checkpoint says.
    """
    kept, metrics = noted(folder / "checkpoint", "metrics_bytes", -1), folder / "metrics.jsonl"
    if kept < 0:
        return 0
    if not metrics.is_file() or metrics.stat().st_size < kept:
        raise UserError(f"{metrics}: missing or shorter than the checkpoint says")
    with metrics.open("r+b") as file:
        file.truncate(kept)
    return kept


def priced(price: float, steps: int) -> int:
    """Return what the steps of a stage count for, rounded up."""
    return math.ceil(price * steps - 1e-9)  # 0.1 * 30 is 3, and not a little more
