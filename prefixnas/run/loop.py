"""The loop that a run's steps go through: it counts, saves and restores itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from prefixnas.base.errors import UserError
from prefixnas.run.checkpoint import Stateful
from prefixnas.run.ledger import BudgetExceeded, Ledger


class Loop(Iterator[int]):
    """A loop over steps that saves and restores itself; see `Run.steps`.

    Args:
        ledger: What the run has done.
        phase: Unique name.
        total: Number of steps.
        parts: Returns what goes into a checkpoint, by name.
        cost: Search steps that a step is worth.
        budget: Search steps that may be spent.
    """

    def __init__(
        self,
        ledger: Ledger,
        phase: str,
        total: int,
        parts: Callable[[], Mapping[str, Stateful]],
        cost: Callable[[int], int],
        budget: int,
    ) -> None:
        self.phase, self.total = phase, total
        self._ledger, self._parts, self._cost, self._budget = ledger, parts, cost, budget
        self._next, self._over = ledger.enter(phase, parts())
        self._stop = False
        self._entered = False
        self._pending: dict[str, Any] | None = None

    def stop(self) -> None:
        """End the loop after the current step."""
        self._stop = True

    def __next__(self) -> int:
        ledger = self._ledger
        if self._over:
            raise StopIteration
        if self._entered:
            if self._pending is not None:
                ledger.write(self._pending)
            self._pending = None
            ledger.count(self._cost(self._next))
            self._next += 1
        if self._stop or self._next >= self.total:
            self._over, ledger.looping = True, False
            ledger.mark(self.phase, self._next, self._parts(), finished=True)
            ledger.save()
            raise StopIteration
        if self._entered and self._next % ledger.every == 0:
            ledger.mark(self.phase, self._next, self._parts(), finished=False)
            # Written after the step, which shows whether these weights still give a finite loss.
            self._pending = ledger.snapshot()
        elif not self._entered and self._next == 0:
            ledger.mark(self.phase, 0, self._parts(), finished=False)
            ledger.save()
        cost = self._cost(self._next)
        if cost and ledger.spent + cost > self._budget:
            raise BudgetExceeded(
                f"phase {self.phase!r} goes beyond the search budget of {self._budget} steps"
            )
        self._entered = ledger.looping = True
        return self._next


def refuse_nan(losses: Mapping[str, float], phase: str, step: int, folder: Path) -> None:
    """Stop the run in `folder` at the first loss that is no number.

    Raises:
        UserError: Names the phase, the step and the task.
    """
    for task, loss in losses.items():
        if not (float("-inf") < loss < float("inf")):
            raise UserError(
                f"the loss of task {task!r} became {loss} at step {step} of phase {phase!r}; "
                f"the last good checkpoint stays in {folder / 'checkpoint'}; a lower learning "
                "rate may help"
            )
