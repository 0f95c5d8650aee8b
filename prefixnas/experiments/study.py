"""The study of an experiment: Optuna's, and the one source of truth under every engine.

All trials are written into the storage as waiting ones when the study begins, so that processes
take them up without ever making one too many. Whoever runs a trial holds a lock beside its folder,
which ends with its process: a trial that counts as running and is not held was lost, and is taken
up again with the parameters it has, in the run directory it has.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from prefixnas.base.errors import UserError
from prefixnas.base.files import make_folder, parse_json, write_text
from prefixnas.base.locks import LOCK, try_lock, wait_for_lock
from prefixnas.experiments.claim import Claim
from prefixnas.experiments.experiment import Experiment
from prefixnas.experiments.rows import (
    COMPLETE,
    CRASHES,
    DIRECTORY,
    ERROR,
    PLACE,
    PROCESS,
    RUNNING,
    WAITING,
    Row,
    quiet,
    row_of,
)
from prefixnas.experiments.samplers import make_pruner, make_sampler
from prefixnas.experiments.storage import has_study, open_storage
from prefixnas.experiments.trial import is_free, trial_folder

if TYPE_CHECKING:
    import optuna

EXPERIMENT, SPACES = "experiment", "spaces"


class Study:
    """The trials of one experiment; see `Study.open`."""

    def __init__(
        self, experiment: Experiment, folder: Path, storage: optuna.storages.BaseStorage
    ) -> None:
        import optuna

        file = experiment.file
        self.experiment, self.folder = experiment, folder
        self._storage = storage
        with quiet():
            self.optuna = optuna.create_study(
                storage=storage,
                study_name=experiment.name,
                direction=experiment.target.direction,
                sampler=make_sampler(file.sampler, file.seed, experiment.where),
                pruner=make_pruner(file.pruner, experiment.where, experiment.epochs()),
                load_if_exists=True,
            )
        self._id = storage.get_study_id_from_name(experiment.name)
        self._place = self._find_place()

    @classmethod
    def open(cls, experiment: Experiment, folder: Path) -> Self:
        """Open the study of an experiment, or begin it.

        Args:
            experiment: The experiment.
            folder: Where run directories, locks and, by default, the storage lie.

        Raises:
            UserError: The storage cannot be reached, or the study there is of another experiment,
                or a space of it was edited.
        """
        make_folder(folder)
        with wait_for_lock(folder / LOCK):
            study = cls(experiment, folder, open_storage(experiment.file.storage, folder))
            stored = study.optuna.user_attrs.get(EXPERIMENT)
            if stored is not None:
                experiment.refuse_change(_stored(stored, folder), str(folder))
            if stored != (text := json.dumps(experiment.shown())):
                study.optuna.set_user_attr(EXPERIMENT, text)
            study._refuse_edited_spaces()
            study._fill_up()
        return study

    @staticmethod
    def begun(experiment: Experiment, folder: Path) -> bool:
        """Tell whether the storage holds the study already; nothing is made.

        Raises:
            UserError: The storage cannot be reached.
        """
        return has_study(experiment.file.storage, folder, experiment.name)

    def claim(self) -> Claim | None:
        """Take up a trial: one that was lost, else the next one; None: there is none to take."""
        with wait_for_lock(self.folder / LOCK):
            open_ = [row for row in self.rows() if row.state in (RUNNING, WAITING)]
            for row in sorted(open_, key=lambda row: (row.state != RUNNING, row.number)):
                if row.state == RUNNING and not self.lost(row):
                    continue
                if row.state == WAITING and row.number >= self.experiment.trials:
                    continue
                if (claim := self._take_up(row)) is not None:
                    return claim
        return None

    def adopt(self, number: int, params: Mapping[str, Any] | None = None) -> Claim | None:
        """Take up one trial, also if its run goes on elsewhere; None: it is over, or taken.

        Args:
            number: The trial's number.
            params: Hyper-parameters for one that waits, in place of the sampler's.
        """
        with wait_for_lock(self.folder / LOCK):
            row = self.row(number)
            return None if row.over else self._take_up(row, params)

    @property
    def open_elsewhere(self) -> bool:
        """Whether other processes of this folder still run trials, which may be lost yet."""
        return any(row.state == RUNNING and self._here(row) for row in self.rows())

    def rows(self) -> list[Row]:
        """Return all trials up to the number that is asked for, in order."""
        with quiet():
            trials = self.optuna.get_trials(deepcopy=False)  # fills Optuna's own cache, too
        return [row_of(trial) for trial in sorted(trials, key=lambda trial: trial.number)]

    def row(self, number: int) -> Row:
        """Return one trial."""
        return row_of(self._storage.get_trial(self._trial_id(number)))

    def best(self) -> Row | None:
        """Return the complete trial with the best score; of equal ones the first."""
        complete = [row for row in self.rows() if row.state == COMPLETE and row.score is not None]
        sign = 1 if self.experiment.target.direction == "maximize" else -1
        return max(complete, key=lambda row: sign * (row.score or 0.0), default=None)

    def trial_folder(self, number: int) -> Path:
        """Return the run directory of a trial."""
        return trial_folder(self.folder, number)

    def crashed(self, process: int, error: str, most: int) -> None:
        """Note that a process of this machine died in a trial; too often, and the trial failed.

        Args:
            process: Its id.
            error: How it died.
            most: How often a trial may take its process with it before it counts as failed.
        """
        import optuna

        with wait_for_lock(self.folder / LOCK):
            for row in self.rows():
                if row.state != RUNNING or row.notes.get(PROCESS) != process or not self.lost(row):
                    continue
                trial_id = self._trial_id(row.number)
                crashes = int(row.notes.get(CRASHES, 0)) + 1
                self._storage.set_trial_user_attr(trial_id, CRASHES, crashes)
                if crashes >= most:
                    self._storage.set_trial_user_attr(
                        trial_id, ERROR, f"its process died {crashes} times: {error}"
                    )
                    self._storage.set_trial_state_values(trial_id, optuna.trial.TrialState.FAIL)

    def _take_up(self, row: Row, params: Mapping[str, Any] | None = None) -> Claim | None:
        import optuna

        if (lock := try_lock(self._claim_path(row.number))) is None:
            return None
        if self.row(row.number).over:  # its process told of it and let go since `row` was read
            lock.release()
            return None
        trial_id = self._trial_id(row.number)
        if params is not None:  # as `enqueue_trial` writes them
            self._storage.set_trial_system_attr(trial_id, "fixed_params", dict(params))
        running = optuna.trial.TrialState.RUNNING
        if row.state == WAITING and not self._storage.set_trial_state_values(trial_id, running):
            lock.release()  # taken up from another folder
            return None
        folder = self.trial_folder(row.number)
        notes = {PLACE: self._place, PROCESS: os.getpid(), DIRECTORY: str(folder.resolve())}
        for name, value in notes.items():
            self._storage.set_trial_user_attr(trial_id, name, value)
        with quiet():
            trial = optuna.Trial(self.optuna, trial_id)
            return Claim(self.experiment, trial, self.row(row.number).epochs, folder, lock)

    def _refuse_edited_spaces(self) -> None:
        """Refuse to go on on edited spaces; a study of an earlier version has no note of them."""
        now = self.experiment.spaces()
        began = self.optuna.user_attrs.get(SPACES)
        if not isinstance(began, Mapping):
            self.optuna.set_user_attr(SPACES, now)
        elif edited := next((name for name in now if began.get(name) != now[name]), None):
            raise UserError(
                f"{self.folder}: cannot go on: the space {edited!r} is not what the study began "
                "with; put it back, or begin a new study"
            )

    def _fill_up(self) -> None:
        """Write the trials that are still missing, as waiting ones."""
        import optuna

        waiting = optuna.trial.create_trial(state=optuna.trial.TrialState.WAITING)
        for _ in range(len(self.rows()), self.experiment.trials):
            self.optuna.add_trial(waiting)

    def lost(self, row: Row) -> bool:
        """Tell whether a trial of this folder counts as running and is held by no process."""
        if row.state != RUNNING or not self._here(row):
            return False
        if (lock := try_lock(self._claim_path(row.number))) is None:
            return False
        lock.release()
        return is_free(self.trial_folder(row.number))

    def _here(self, row: Row) -> bool:
        return bool(row.notes.get(PLACE, self._place) == self._place)

    def _claim_path(self, number: int) -> Path:
        folder = self.trial_folder(number)
        folder.parent.mkdir(parents=True, exist_ok=True)
        return folder.with_name(f".{folder.name}.claim")

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, number)

    def _find_place(self) -> str:
        """Return the name of this folder, which it keeps when it is moved."""
        path = self.folder / ".place"
        if not path.is_file():
            write_text(path, uuid.uuid4().hex)
        return path.read_text(encoding="utf-8")


def _stored(text: Any, folder: Path) -> Mapping[str, Any]:
    """Return the experiment that a storage holds."""
    try:
        if isinstance(found := parse_json(text), dict):
            return found
    except (ValueError, TypeError):
        pass
    raise UserError(f"{folder}: its storage is damaged: it does not hold the experiment")
