"""One run: its folder, events, random state, and loops that survive a kill.

A strategy is a plain loop over `run.steps(...)`; checkpoints happen inside it. On resume the
program is executed from its start again: what is in the past is skipped or taken from the notes
(`run.once`), the loop that was interrupted gets its state back and goes on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from prefixnas.base.files import writing
from prefixnas.run import events
from prefixnas.run.answers import keep_answers
from prefixnas.run.checkpoint import Stateful
from prefixnas.run.evaluation import Evaluation, Split
from prefixnas.run.events import Event
from prefixnas.run.ledger import Ledger
from prefixnas.run.loop import Loop
from prefixnas.run.objective import Objective, fit_space
from prefixnas.run.ranks import ranks_here
from prefixnas.space.space import SearchSpace

T = TypeVar("T")


@dataclass(frozen=True)
class Budget:
    """What a run may spend, in joint training steps (one batch of every task each).

    Attributes:
        search: Steps for finding the architecture.
        train: Steps for training the found one on.
        apart: Steps for the problem's own weights, where they train apart from the module
            (`Objective.order`).
    """

    search: int
    train: int
    apart: int = 0

    @property
    def total(self) -> int:
        """All steps with the module."""
        return self.search + self.train

    @property
    def whole(self) -> int:
        """All steps."""
        return self.total + self.apart


class Run:
    """Everything a strategy works with.

    Args:
        folder: The run directory; made if missing.
        space: The search space; its sizes become the objective's.
        objective: The problem; it must know the space's knobs.
        budget: Steps for searching and for training on.
        seed: Seed of everything random.
        settings: Options of choices that are decided by trial, set by hand.
        checkpoint_every: Steps between two checkpoints.
        on_event: Called with every event, after it was written.
        resume: Go on from the checkpoint in `folder`.
        blind: Never score on the splits "validation" and "test": the run only helps to choose.

    Example:
        >>> from prefixnas import load_space
        >>> from prefixnas.testing import ToyObjective
        >>> run = Run(Path("toy"), load_space("mlp"), ToyObjective(), Budget(search=20, train=10))
        >>> run.spent, run.budget.total
        (0, 30)
    """

    def __init__(
        self,
        folder: Path,
        space: SearchSpace,
        objective: Objective,
        budget: Budget,
        seed: int = 0,
        *,
        settings: Mapping[str, str] | None = None,
        checkpoint_every: int = 50,
        on_event: Callable[[Event], None] | None = None,
        resume: bool = False,
        blind: bool = False,
    ) -> None:
        self.folder, self.blind = folder, blind
        self.space = fit_space(space, objective)
        self.objective = objective
        self.budget = budget
        self.seed = seed
        self.settings = dict(settings or {})
        self.ranks = ranks_here()
        self.module: nn.Module | None = None
        self._on_event = on_event
        self._began = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        self._metrics = folder / "metrics.jsonl"
        torch.manual_seed(seed)
        self._ledger = Ledger(folder, self.ranks, checkpoint_every, resume)
        if damage := self._ledger.damage:
            self.emit(events.Warning(f"{damage}; the run goes on from the checkpoint before it"))

    # Modules

    def reset(self, module: nn.Module | None) -> None:
        """Start the objective anew with `module` in its place."""
        self.module = module
        self.objective.reset(module, self.seed)

    def replace(self, module: nn.Module) -> None:
        """Swap the searched module and keep what else was trained."""
        self.module = module
        self.objective.replace(module)

    def evaluate(self, name: str, split: Split) -> Evaluation:
        """Score the model as it stands, once: a resumed run takes the noted result.

        On the split "validation" what the objective shows of its answers goes to `answers.json`.
        """

        def measure() -> dict[str, Any]:
            found = self.objective.evaluate(split)
            self.emit(events.Evaluation(name, split, **found.to_json()))
            if split != "validation":
                return found.to_json()
            if self.ranks.first:
                keep_answers(self.folder, name, found.answers)
            moved = {task: list(values) for task, values in found.influences.items()}
            return {**found.to_json(), "influences": moved}

        name = self._ledger.scoped(name)
        return Evaluation.from_json(self.once(f"evaluation {name} {split}", measure))

    def report(self, name: str, split: Literal["validation", "test"]) -> Evaluation | None:
        """Score what is only reported, and chooses nothing; None: the run is blind."""
        return None if self.blind else self.evaluate(name, split)

    def epoch(self, phase: str, step: int | str) -> Evaluation:
        """Score on the split "selection" at the end of an epoch, and tell of it: event `epoch`.

        Args:
            phase: The loop.
            step: Its steps so far, or "end".
        """
        evaluation = self.evaluate(f"{phase} {step}", "selection")

        def tell() -> int:
            self._ledger.epochs += 1
            number, where = self._ledger.epochs, self._ledger.scoped(phase)
            self.emit(events.Epoch(number, where, evaluation.score, dict(evaluation.task_scores)))
            return number

        self.once(f"epoch {phase} {step}", tell)
        return evaluation

    # Events and notes

    def emit(self, event: Event) -> None:
        """Append an event to `metrics.jsonl`; with several processes, rank 0 alone does."""
        if not self.ranks.first:
            return
        event = replace(event, time=round(time.monotonic() - self._began, 3))
        with writing(self._metrics), self._metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event.to_json()) + "\n")
        if self._on_event is not None:
            self._on_event(event)

    def once(self, name: str, make: Callable[[], T]) -> T:
        """Return `make()`, a JSON value, and note it: a resumed run does not make it again.

        The name is unique in the run. The random state is the same before and after. Inside a
        loop the note is written with the loop's next checkpoint, so that notes, events and
        weights on the disk belong together. With several processes all of them make it, and rank
        0's value counts.
        """
        return self._ledger.once(name, make)

    @property
    def spent(self) -> int:
        """Search steps spent so far; within a stage, those of the stage."""
        return self._ledger.spent

    # Loops

    def steps(
        self,
        phase: str,
        total: int,
        state: Mapping[str, Stateful] | None = None,
        cost: int | Callable[[int], int] = 1,
    ) -> Loop:
        """Return a resumable loop over `range(total)` that counts against the search budget.

        Args:
            phase: Unique name of the loop in this run.
            total: Number of steps.
            state: What the loop changes besides the objective and the attached module.
            cost: Search steps that one step is worth (2 if it passes two batches, 0 if the driver
                trains with it), or a function of the step.
        """

        def parts() -> dict[str, Stateful]:
            found: dict[str, Stateful] = {"objective": self.objective, **(state or {})}
            return found | ({} if self.module is None else {"module": self.module})

        costs = cost if callable(cost) else lambda _: cost
        return Loop(self._ledger, phase, total, parts, costs, self.budget.search)

    @contextmanager
    def stage(
        self,
        name: str,
        objective: Objective,
        steps: int,
        price: float = 1.0,
        settings: Mapping[str, str] | None = None,
    ) -> Iterator[None]:
        """Work on another objective for a while, with a budget of its own.

        Meanwhile `objective`, `budget`, `settings`, `module` and `spent` are those of the stage;
        phases, notes and evaluations get its name in front. Afterwards all of them are the run's
        again, and the stage's steps count against its search budget by their price.

        Args:
            name: Unique name of the stage.
            objective: The problem.
            steps: Search steps of the stage; there are none for training on.
            price: What one of them counts for in the run; the sum is rounded up.
            settings: Options set by hand; the run's if not given.

        Raises:
            BudgetExceeded: The steps cost more than what is left.
        """
        whole = self.budget, self.settings
        with self._ledger.stage(name, price, steps, self.budget.search), self.working_on(objective):
            self.budget = Budget(steps, 0)
            self.settings = dict(self.settings if settings is None else settings)
            try:
                yield
            finally:
                self.budget, self.settings = whole

    @contextmanager
    def working_on(self, objective: Objective) -> Iterator[None]:
        """Work on another objective for a while; then objective and module are the run's again."""
        whole = self.objective, self.module
        self.objective, self.module = objective, None
        try:
            yield
        finally:
            self.objective, self.module = whole
