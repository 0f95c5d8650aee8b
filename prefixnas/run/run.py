"""One run: its folder, events, random state, and loops that survive a kill.

A strategy is a plain loop over `run.steps(...)`; checkpoints happen inside it. On resume the
program is executed from its start again: what is in the past is skipped or taken from the notes
(`run.once`), the loop that was interrupted gets its state back and goes on.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from prefixnas.base.errors import UserError
from prefixnas.run.checkpoint import Stateful as Stateful
from prefixnas.run.checkpoint import load_checkpoint, noted, save_checkpoint
from prefixnas.run.evaluation import Evaluation, Split
from prefixnas.run.loop import BudgetExceeded as BudgetExceeded
from prefixnas.run.loop import Loop
from prefixnas.run.objective import Objective, fit_space
from prefixnas.run.ranks import ranks_here
from prefixnas.space.space import SearchSpace

T = TypeVar("T")

_WHOLE = ""
"""The name of no stage."""


@dataclass(frozen=True)
class Budget:
    """What a run may spend, in joint training steps (one batch of every task each).

    Attributes:
        search: Steps for finding the architecture.
        train: Steps for training the found one on.
    """

    search: int
    train: int

    @property
    def total(self) -> int:
        """All steps."""
        return self.search + self.train


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
        on_event: Callable[[Mapping[str, Any]], None] | None = None,
        resume: bool = False,
    ) -> None:
        self.folder = folder
        self.space = fit_space(space, objective)
        self.objective = objective
        self.budget = budget
        self.seed = seed
        self.settings = dict(settings or {})
        self.checkpoint_every = checkpoint_every
        self.ranks = ranks_here()
        self.module: nn.Module | None = None
        self._on_event = on_event
        self._began = time.monotonic()
        self._notes: dict[str, Any] = {}
        self._finished: list[str] = []
        self._asked: set[str] = set()
        self._entered: set[str] = set()
        self._spent = {_WHOLE: 0}
        self._stage = _WHOLE
        self._prices: dict[str, float] = {}
        self._epochs = 0
        self._looping = False
        self._serial = 0
        self._position: dict[str, Any] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._metrics = folder / "metrics.jsonl"
        torch.manual_seed(seed)
        if resume:
            self._restore()
            self.ranks.wait()  # until all have read what rank 0 will overwrite
        elif self.ranks.first:
            (folder / "checkpoint" / "state.json").unlink(missing_ok=True)
            self._metrics.write_text("", encoding="utf-8")

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
        """Score the model as it stands, once: a resumed run takes the noted result."""

        def measure() -> dict[str, Any]:
            evaluation = self.objective.evaluate(split).to_json()
            self.emit("evaluation", name=name, split=split, **evaluation)
            return evaluation

        name = self._scoped(name)
        return Evaluation.from_json(self.once(f"evaluation {name} {split}", measure))

    def epoch(self, phase: str, step: int | str) -> Evaluation:
        """Score on the split "selection" at the end of an epoch, and tell of it: event `epoch`.

        Args:
            phase: The loop.
            step: Its steps so far, or "end".
        """
        evaluation = self.evaluate(f"{phase} {step}", "selection")

        def tell() -> int:
            self._epochs += 1
            scores = {"score": evaluation.score, "task_scores": dict(evaluation.task_scores)}
            self.emit("epoch", epoch=self._epochs, phase=self._scoped(phase), **scores)
            return self._epochs

        self.once(f"epoch {phase} {step}", tell)
        return evaluation

    # Events and notes

    def emit(self, event: str, **values: Any) -> None:
        """Append one event to `metrics.jsonl`; with several processes, rank 0 alone does."""
        if not self.ranks.first:
            return
        record = {"event": event, "time": round(time.monotonic() - self._began, 3), **values}
        with self._metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if self._on_event is not None:
            self._on_event(record)

    def once(self, name: str, make: Callable[[], T]) -> T:
        """Return `make()`, a JSON value, and note it: a resumed run does not make it again.

        The name is unique in the run. The random state is the same before and after. Inside a
        loop the note is written with the loop's next checkpoint, so that notes, events and
        weights on the disk belong together. With several processes all of them make it, and rank
        0's value counts.
        """
        name = self._scoped(name)
        if name in self._asked:
            raise ValueError(f"the note {name!r} is asked for twice in one run")
        self._asked.add(name)
        if name not in self._notes:
            with torch.random.fork_rng(self.ranks.random_devices()):
                self._notes[name] = self.ranks.carry_out(make)
            if not self._looping:
                self._save()
        value: T = self._notes[name]
        return value

    @property
    def spent(self) -> int:
        """Search steps spent so far; within a stage, those of the stage."""
        if self._stage:
            return self._spent[self._stage]
        return self._spent[_WHOLE] + sum(
            _priced(price, self._spent[name]) for name, price in self._prices.items()
        )

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
            cost: Search steps that one step is worth (2 if it passes two batches), or a function
                of the step.
        """
        costs = cost if callable(cost) else lambda _: cost
        return Loop(self, phase, total, dict(state or {}), costs)

    def free_steps(self, phase: str, total: int, state: Mapping[str, Stateful]) -> Loop:
        """Return a resumable loop outside of the search budget; the driver trains with it."""
        return Loop(self, phase, total, dict(state), lambda _: 0)

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
        if self._stage:
            raise ValueError(f"stage {name!r} begins within stage {self._stage!r}")
        if name in self._prices:
            raise ValueError(f"the stage {name!r} is entered twice in one run")
        self._spent.setdefault(name, 0)
        if self.spent + _priced(price, steps) > self.budget.search:
            raise BudgetExceeded(
                f"stage {name!r} goes beyond the search budget of {self.budget.search} steps"
            )
        whole = self.objective, self.budget, self.settings, self.module
        self._stage, self.objective, self.budget = name, objective, Budget(steps, 0)
        self.settings, self.module = dict(self.settings if settings is None else settings), None
        try:
            yield
        finally:
            self.objective, self.budget, self.settings, self.module = whole
            self._stage, self._prices[name] = _WHOLE, price

    def _scoped(self, name: str) -> str:
        return f"{self._stage} {name}" if self._stage else name

    def _count(self, steps: int) -> None:
        self._spent[self._stage] += steps

    # Checkpoints

    def _enter(self, phase: str, state: Mapping[str, Stateful]) -> tuple[int, bool]:
        """Return where a loop starts, and whether it is over; restores its state if it is due."""
        phase = self._scoped(phase)
        if phase in self._entered:
            raise ValueError(f"the phase {phase!r} is entered twice in one run")
        self._entered.add(phase)
        saved = self._position
        if saved.get("phase") == phase:
            for name, part in self._parts(state).items():
                part.load_state_dict(saved["parts"][name])
            torch.set_rng_state(saved["rng"])
            if torch.cuda.is_available() and "cuda" in saved:
                self._set_cuda_rng(saved["cuda"])
            return int(saved["step"]), phase in self._finished
        return 0, phase in self._finished

    def _mark(self, phase: str, step: int, state: Mapping[str, Stateful], finished: bool) -> None:
        phase = self._scoped(phase)
        if finished:
            self._finished.append(phase)
        if not self.ranks.first:
            return
        parts = {name: part.state_dict() for name, part in self._parts(state).items()}
        self._position = {
            "phase": phase,
            "step": step,
            "parts": copy.deepcopy(parts),  # the live weights move on, a later save must not
            "rng": torch.get_rng_state(),
        }
        if torch.cuda.is_available():
            self._position["cuda"] = self._cuda_rng()

    def _cuda_rng(self) -> list[torch.Tensor]:
        if self.ranks.count == 1:
            return torch.cuda.get_rng_state_all()
        return [torch.cuda.get_rng_state()]  # all ranks are in the same state

    def _set_cuda_rng(self, states: list[torch.Tensor]) -> None:
        if self.ranks.count == 1:
            torch.cuda.set_rng_state_all(states)
        else:
            torch.cuda.set_rng_state(states[0])

    def _parts(self, state: Mapping[str, Stateful]) -> dict[str, Stateful]:
        parts: dict[str, Stateful] = {"objective": self.objective, **state}
        if self.module is not None:
            parts["module"] = self.module
        return parts

    def _save(self) -> None:
        self._write(self._snapshot())

    def _snapshot(self) -> dict[str, Any]:
        if not self.ranks.first:
            return {}
        return {
            "position": self._position,
            "notes": copy.deepcopy(self._notes),
            "finished": [*self._finished],
            "spent": self._spent[_WHOLE],
            "stages": {name: spent for name, spent in self._spent.items() if name},
            "epochs": self._epochs,
            "metrics_bytes": self._metrics.stat().st_size,
        }

    def _write(self, state: Mapping[str, Any]) -> None:
        if not self.ranks.first:
            return
        self._serial += 1
        state = {**state, "serial": self._serial}
        save_checkpoint(self.folder / "checkpoint", state, self._serial)

    def _restore(self) -> None:
        state = load_checkpoint(self.folder / "checkpoint")
        if state is None:
            if self.ranks.first:
                self._metrics.write_text("", encoding="utf-8")
            return
        self._position = state["position"]
        self._notes = state["notes"]
        self._finished = state["finished"]
        self._spent = {_WHOLE: state["spent"], **state.get("stages", {})}
        self._serial = state["serial"]
        self._epochs = state.get("epochs", 0)
        if self.ranks.first:
            kept_events(self.folder)


def kept_events(folder: Path) -> int:
    """Cut a run's events off where its checkpoint was written; return the bytes that are left.

    Raises:
        UserError: There are fewer events than the checkpoint says.
    """
    kept, metrics = noted(folder / "checkpoint", "metrics_bytes", 0), folder / "metrics.jsonl"
    if not kept and not metrics.is_file():
        return 0
    if not metrics.is_file() or metrics.stat().st_size < kept:
        raise UserError(f"{metrics}: missing or shorter than the checkpoint says")
    with metrics.open("r+b") as file:
        file.truncate(kept)
    return kept


def _priced(price: float, steps: int) -> int:
    return math.ceil(price * steps - 1e-9)  # 0.1 * 30 is 3, and not a little more
