"""The loop that a run's steps go through: it counts, saves and restores itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from prefixnas.base.errors import UserError
from prefixnas.run.checkpoint import Stateful

if TYPE_CHECKING:
    from prefixnas.run.run import Run


class BudgetExceeded(RuntimeError):
    """A strategy asked for more search steps than its budget holds."""


class Loop(Iterator[int]):
    """A loop over steps that saves and restores itself; see `Run.steps`.

    Args:
        run: The run.
        phase: Unique name.
        total: Number of steps.
        state: Parts that go into the checkpoint.
        cost: Search steps that a step is worth.
    """

    def __init__(
        self,
        run: Run,
        phase: str,
        total: int,
        state: dict[str, Stateful],
        cost: Callable[[int], int],
    ) -> None:
        self.run, self.phase, self.total, self.state, self.cost = run, phase, total, state, cost
        self._next, self._over = run._enter(phase, state)
        self._stop = False
        self._entered = False
        self._pending: dict[str, Any] | None = None

    def stop(self) -> None:
        """End the loop after the current step."""
        self._stop = True

    def __next__(self) -> int:
        run = self.run
        if self._over:
            raise StopIteration
        if self._entered:
            if self._pending is not None:
                run._write(self._pending)
            self._pending = None
            run._count(self.cost(self._next))
            self._next += 1
        if self._stop or self._next >= self.total:
            self._over, run._looping = True, False
            run._mark(self.phase, self._next, self.state, finished=True)
            run._save()
            raise StopIteration
        if self._entered and self._next % run.checkpoint_every == 0:
            run._mark(self.phase, self._next, self.state, finished=False)
            # Written after the step, which shows whether these weights still give a finite loss.
            self._pending = run._snapshot()
        elif not self._entered and self._next == 0:
            run._mark(self.phase, 0, self.state, finished=False)
            run._save()
        cost = self.cost(self._next)
        if cost and run.spent + cost > run.budget.search:
            raise BudgetExceeded(
                f"phase {self.phase!r} goes beyond the search budget of {run.budget.search} steps"
            )
        self._entered = run._looping = True
        return self._next


def refuse_nan(losses: Mapping[str, float], phase: str, step: int, run: Run) -> None:
    """Stop the run at the first loss that is no number.

    Raises:
        UserError: Names the phase, the step and the task.
    """
    for task, loss in losses.items():
        if not (float("-inf") < loss < float("inf")):
            kept = run.folder / "checkpoint"
            raise UserError(
                f"the loss of task {task!r} became {loss} at step {step} of phase {phase!r}; "
                f"the last good checkpoint stays in {kept}; a lower learning rate may help"
            )
