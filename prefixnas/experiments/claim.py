"""A trial that a process took up: its hyper-parameters, and the way to tell of it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefixnas.base.locks import Lock
from prefixnas.experiments.experiment import Experiment
from prefixnas.experiments.hyperparameters import assign
from prefixnas.experiments.rows import ARCHITECTURE, ERROR, PARAMETERS, STEPS, VALIDATION, quiet
from prefixnas.experiments.samplers import suggest
from prefixnas.experiments.trial import Pruned, TrialResult

if TYPE_CHECKING:
    import optuna


class Claim:
    """A trial that this process took up; nobody else does until it is closed.

    Args:
        experiment: What it is a trial of.
        trial: Optuna's trial.
        known: Epochs that were reported before.
        folder: Its run directory.
        lock: The lock that was taken.

    Attributes:
        number: The trial's number.
        assigned: The keys of the search that its hyper-parameters set.
    """

    def __init__(
        self,
        experiment: Experiment,
        trial: optuna.Trial,
        known: Iterable[int],
        folder: Path,
        lock: Lock,
    ) -> None:
        self._experiment, self._trial, self._lock = experiment, trial, lock
        self.number, self.folder = trial.number, folder
        self._known = set(known)
        with quiet():
            self.assigned = assign(experiment.hyperparameters, partial(suggest, trial))

    @property
    def params(self) -> dict[str, Any]:
        """The hyper-parameters by their names in the study."""
        return dict(self._trial.params)

    def config(self) -> dict[str, Any]:
        """Return the complete configuration of the trial's search."""
        return self._experiment.resolve(self.assigned)

    def report(self, epoch: int, score: float) -> None:
        """Note an epoch's score, once.

        Raises:
            Pruned: The pruner has seen enough.
        """
        if epoch in self._known:
            return
        self._known.add(epoch)
        with quiet():
            self._trial.report(score, epoch)
            if self._trial.should_prune():
                raise Pruned

    def finish(self, result: TrialResult) -> None:
        """Tell the study what came out, and close."""
        notes = {
            VALIDATION: result.validation,
            STEPS: result.steps,
            PARAMETERS: result.parameters,
            ARCHITECTURE: dict(result.architecture),
        }
        for epoch, score in enumerate(result.epochs, 1):
            if epoch not in self._known:
                self._trial.report(score, epoch)
        if math.isnan(result.score):
            self.fail("the score is no number")
            return
        for name, value in notes.items():
            if value is not None:
                self._trial.set_user_attr(name, value)
        self._tell(None if result.pruned else result.score)

    def fail(self, error: str) -> None:
        """Tell the study why the trial came to nothing, and close."""
        self._trial.set_user_attr(ERROR, error)
        self._tell(None, failed=True)

    def _tell(self, score: float | None, *, failed: bool = False) -> None:
        """Write the trial's end: its score, or None if it was pruned or failed; close."""
        import optuna

        states = optuna.trial.TrialState
        state = states.COMPLETE if score is not None else states.FAIL if failed else states.PRUNED
        with quiet():
            self._trial.study.tell(self._trial, score, state)
        self.close()

    def close(self) -> None:
        """Let go of the trial; one that was not told of counts as lost."""
        self._lock.release()
