"""A trial that a process took up: its hyper-parameters, and the way to tell of it."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

from prefixnas.base.locks import Lock
from prefixnas.experiments.hyperparameters import assign
from prefixnas.experiments.rows import ARCHITECTURE, ERROR, PARAMETERS, STEPS, VALIDATION, quiet
from prefixnas.experiments.samplers import suggest
from prefixnas.experiments.trial import Pruned, TrialResult

if TYPE_CHECKING:
    import optuna

    from prefixnas.experiments.study import Study


class Claim:
    """A trial that this process took up; nobody else does until it is closed.

    Args:
        study: The study.
        trial: Optuna's trial.
        lock: The lock that was taken.

    Attributes:
        number: The trial's number.
        folder: Its run directory.
        assigned: The keys of the search that its hyper-parameters set.
    """

    def __init__(self, study: Study, trial: optuna.Trial, lock: Lock) -> None:
        self._study, self._trial, self._lock = study, trial, lock
        self.number = trial.number
        self.folder = study.trial_folder(trial.number)
        self._known = set(study.row(trial.number).epochs)
        with quiet():
            self.assigned = assign(study.experiment.hyperparameters, partial(suggest, trial))

    @property
    def params(self) -> dict[str, Any]:
        """The hyper-parameters by their names in the study."""
        return dict(self._trial.params)

    def config(self) -> dict[str, Any]:
        """Return the complete configuration of the trial's search."""
        return self._study.experiment.resolve(self.assigned)

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
        self._study.tell(self._trial, None if result.pruned else result.score)
        self.close()

    def fail(self, error: str) -> None:
        """Tell the study why the trial came to nothing, and close."""
        self._trial.set_user_attr(ERROR, error)
        self._study.tell(self._trial, None, failed=True)
        self.close()

    def close(self) -> None:
        """Let go of the trial; one that was not told of counts as lost."""
        self._lock.release()
