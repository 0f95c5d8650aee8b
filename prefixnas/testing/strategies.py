"""The contract of strategies."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import ClassVar

import torch

from prefixnas.base.errors import UserError
from prefixnas.network.supernet import build_child
from prefixnas.run.ledger import BudgetExceeded
from prefixnas.run.objective import Objective
from prefixnas.run.run import Budget, Run
from prefixnas.run.strategy import Found, Strategy
from prefixnas.space.space import SearchSpace
from prefixnas.testing.promise import BrokenPromise, a_test_for_each, expect, promises_of
from prefixnas.testing.short_run import Outcome, ShortRun
from prefixnas.testing.spaces import shipped_spaces
from prefixnas.testing.toy import ToyObjective
from prefixnas.testing.watched import Watched


class StrategyCheck:
    """The promises of a strategy on one space, one method each.

    Args:
        strategy: The strategy.
        space: The space.
        objective: Makes a fresh objective; importable by name, for the run in another process.
        imports: Modules that register what the strategy or the space needs.
        floor: What every alpha's gradient must exceed, on average over the batches.
    """

    def __init__(
        self,
        strategy: Strategy,
        space: SearchSpace,
        objective: Callable[[], Objective] = ToyObjective,
        imports: Sequence[str] = (),
        floor: float = 1e-6,
    ) -> None:
        self.short_run = ShortRun(strategy, space, objective)
        self.imports = imports
        self.floor = floor

    @cached_property
    def _observed(self) -> tuple[Outcome, dict[str, BrokenPromise]]:
        """One uninterrupted run, looked at from all sides when its search is over."""
        broken: dict[str, BrokenPromise] = {}

        def inspect(run: Run, probe: Watched, found: Found) -> None:
            for look in (_look_at_architecture, _look_at_budget, self._look_at_alphas):
                try:
                    look(run, probe, found)
                except BrokenPromise as error:
                    broken[error.promise] = error

        try:
            return replace(self.short_run, inspect=inspect).run(), broken
        except BudgetExceeded as error:
            raise BrokenPromise("budget", str(error)) from error

    @property
    def reference(self) -> Outcome:
        """The outcome of an uninterrupted run."""
        return self._observed[0]

    def architecture(self) -> None:
        """What is returned is of the space, builds, runs, and is the module that is attached."""
        self._raise("architecture")

    def budget(self) -> None:
        """No more batches are drawn than the budget allows, nor than the run counted."""
        self._raise("budget")
        for steps in (1, 5):
            try:
                replace(self.short_run, budget=Budget(steps, 1), inspect=_look_at_budget).run()
            except UserError:
                continue  # a strategy may refuse a budget that is too small for it
            except BudgetExceeded as error:
                raise BrokenPromise("budget", str(error)) from error

    def alphas(self) -> None:
        """Every alpha receives a gradient above the floor, and every decision's alphas move."""
        self._raise("alphas")

    def same_seed(self) -> None:
        """The same seed gives the same result, however often it is run in one process."""
        self._same("same seed", self.short_run.run(), "a second run with the same seed differs")

    def other_seed(self) -> None:
        """Another seed gives another run: the strategy has an effect, and follows the seed."""
        other = replace(self.short_run, seed=1).run()
        mine, others = (
            [event for event in outcome.events if event.get("name") != "untouched"]
            for outcome in (self.reference, other)
        )
        expect(mine != others, "other seed", "seeds 0 and 1 give the same run")

    def resume(self) -> None:
        """A run that is killed and resumed several times equals one that is not."""
        last = len(self.reference.events)
        kills = sorted({max(1, round(last * part)) for part in (0.1, 0.3, 0.45, 0.6, 0.75, 0.9)})
        outcome = self.short_run.run(kills)
        self._same("resume", outcome, f"killed after the events {kills} and resumed, it differs")

    def settings(self) -> None:
        """Options that are set by hand are in the architecture; trial choices and one of alpha."""
        decisions = self.short_run.space.decisions
        by_alpha = [d for d in decisions if d.decided_by == "alpha" and not d.conditions]
        set_here = [d for d in decisions if d.decided_by == "trial"]
        set_here += by_alpha[:1] if len(by_alpha) > 1 else []
        settings = {decision.name: decision.options[-1] for decision in set_here}
        chosen = replace(self.short_run, settings=settings).run().architecture
        for name, option in settings.items():
            expect(
                chosen.get(name, option) == option,
                "settings",
                f"{name!r} was set to {option!r}, the architecture has {chosen.get(name)!r}",
            )

    def selection(self) -> None:
        """Nothing is chosen by looking at the validation split."""
        chosen = replace(self.short_run, lie=True).run().architecture
        expect(
            chosen == self.reference.architecture,
            "selection",
            "the architecture changes with the validation scores; choose on the selection split",
        )

    def other_process(self) -> None:
        """The same seed gives the same result in another process with other hashes."""
        hash_seed = 2 if os.environ.get("PYTHONHASHSEED") == "1" else 1
        outcome = self.short_run.run_elsewhere(hash_seed, self.imports)
        self._same("process", outcome, f"differs in a process with PYTHONHASHSEED={hash_seed}")

    def _raise(self, promise: str) -> None:
        if promise in self._observed[1]:
            raise self._observed[1][promise]

    def _same(self, promise: str, outcome: Outcome, text: str) -> None:
        difference = self.reference.difference(outcome)
        expect(not difference, promise, f"{text}: {difference}")

    def _look_at_alphas(self, run: Run, probe: Watched, found: Found) -> None:
        for watched in (watched for watched in probe.nets if watched.batches):
            for index, decision in enumerate(watched.net.decisions):
                if len(decision.options) == 1:
                    continue
                mean = watched.gradients[index] / watched.batches
                for option, value in zip(decision.options, mean.tolist(), strict=True):
                    expect(
                        value > self.floor,
                        "alphas",
                        f"option {option!r} of {decision.name!r} receives a gradient of "
                        f"{value:.1e}, which is not above {self.floor:.1e}",
                    )
                moved = watched.net.alphas[index].detach() != watched.start[index]
                expect(bool(moved.any()), "alphas", f"those of {decision.name!r} never move")


def _look_at_budget(run: Run, probe: Watched, found: Found) -> None:
    drawn, allowed, counted = probe.batches, run.budget.search, run.spent
    text = f"{drawn} batches were drawn, {allowed} are allowed, {counted} were counted by the run"
    expect(drawn <= counted <= allowed, "budget", text)


def _look_at_architecture(run: Run, probe: Watched, found: Found) -> None:
    promise, chosen, attached = "architecture", found.architecture, run.module
    try:
        run.space.validate(chosen)
    except UserError as error:
        raise BrokenPromise(promise, str(error)) from error
    expect(chosen.space == run.space.name, promise, f"it says that its space is {chosen.space!r}")
    if attached is None or probe.module is not attached:
        raise BrokenPromise(promise, "the objective does not hold the module that the run holds")
    with torch.random.fork_rng(), torch.no_grad():
        fresh = build_child(run.space, chosen, run.objective.width).eval()
        inputs = torch.randn(3, run.objective.width)
        expect(bool(fresh(inputs).isfinite().all()), promise, "its output is not finite")
        try:
            fresh.load_state_dict(attached.state_dict())
        except RuntimeError as error:
            text = f"the attached module is not of {chosen}: {error}"
            raise BrokenPromise(promise, text) from error
        mode = attached.training
        same = torch.equal(fresh(inputs), attached.eval()(inputs))
        attached.train(mode)
    expect(same, promise, f"the attached module computes something else than {chosen}")


def check_strategy(
    strategy: Strategy,
    *,
    spaces: Sequence[SearchSpace] | None = None,
    objective: Callable[[], Objective] = ToyObjective,
    imports: Sequence[str] = (),
    floor: float = 1e-6,
    other_process: bool = True,
) -> None:
    """Check every promise of a strategy, on every shipped space if none are given.

    Args:
        strategy: The strategy.
        spaces: Where; for these and the following see `StrategyCheck`.
        objective: Makes a fresh objective.
        imports: Modules that register what the strategy or the spaces need.
        floor: What every alpha's gradient must exceed.
        other_process: Also run in another process (on the first space; takes seconds).

    Raises:
        BrokenPromise: Names the first promise that does not hold.
    """
    checks = [
        StrategyCheck(strategy, space, objective, imports, floor)
        for space in (shipped_spaces() if spaces is None else spaces)
    ]
    for check in checks:
        for promise in promises_of(StrategyCheck):
            if promise != "other_process":
                getattr(check, promise)()
    for check in checks[:1] if other_process else ():
        check.other_process()


@a_test_for_each(StrategyCheck)
class StrategyContract(ABC):
    """The promises of a strategy as pytest tests; subclass it and say which strategy."""

    imports: ClassVar[Sequence[str]] = ()
    floor: ClassVar[float] = 1e-6
    _checks: ClassVar[Sequence[StrategyCheck]]

    @abstractmethod
    def strategy(self) -> Strategy:
        """Return the strategy."""

    def objective(self) -> Callable[[], Objective]:
        """Return what makes a fresh objective."""
        return ToyObjective

    def spaces(self) -> Sequence[SearchSpace]:
        """Return the spaces to check on."""
        return shipped_spaces()

    @classmethod
    def checks(cls) -> Sequence[StrategyCheck]:
        """Return a check per space; they share their reference runs between the tests."""
        known: Sequence[StrategyCheck] | None = cls.__dict__.get("_checks")
        if known is None:
            own = cls()
            known = [
                StrategyCheck(own.strategy(), space, own.objective(), own.imports, own.floor)
                for space in own.spaces()
            ]
            cls._checks = known
        return known

    def keep(self, promise: str) -> None:
        """Check one promise, on every space; `other_process`, which takes seconds, on the first."""
        for check in self.checks()[: 1 if promise == "other_process" else None]:
            getattr(check, promise)()
