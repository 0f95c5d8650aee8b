"""Loaded by NNI's own process: a tuner and an assessor that ask the study.

This file runs in NNI's environment, where neither prefixnas nor Optuna need be. The study is kept
by `study_server`, a process of the project's Python, which is asked in lines of JSON over a pipe.
One of NNI's own tuners may propose the values; they enter the study like any others.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nni import NoMoreTrialError
from nni.assessor import Assessor, AssessResult
from nni.common import serializer
from nni.tuner import Tuner

TRIES = 100
"""How often one of NNI's tuners may propose what there was already."""

EVERY = 2.0
"""Seconds between two looks at run directories of trials that an earlier manager started."""


class StudyTuner(Tuner):  # type: ignore[misc]
    """A tuner whose proposals come from the study, or go into it.

    Args:
        server: The command that starts the study's server.
        inner: One of NNI's own tuners, `{name: ..., class_args: ...}`; None: the study's sampler.
    """

    def __init__(self, server: Sequence[str], inner: Mapping[str, Any] | None = None) -> None:
        _refuse_pickles()
        self._study = connect(server)
        _watch_manager(self._study)
        self._wanted = inner
        self._inner: Any = None
        self._trials: dict[int, int] = {}

    def update_search_space(self, search_space: dict[str, Any]) -> None:
        """Take the search space over; an inner tuner learns what the study knows already."""
        if self._wanted is not None:
            known = self._study({"do": "known"})
            self._inner = _make_inner(self._wanted, known)
            self._inner.update_search_space(search_space)
            if known["trials"]:
                self._inner.import_data(known["trials"])

    def generate_parameters(self, parameter_id: int, **_: Any) -> dict[str, Any]:
        """Propose the next trial.

        Raises:
            NoMoreTrialError: The study has all the trials it was to have.
        """
        answer = self._study({"do": "next", "own": self._wanted is None})
        for _try in range(TRIES if answer.get("propose") else 0):
            proposal = self._inner.generate_parameters(parameter_id)
            answer = self._study({"do": "take", "values": proposal})
            if "trial" in answer:
                break
        if "trial" not in answer:
            raise NoMoreTrialError(answer.get("reason", "the tuner proposes nothing new"))
        self._trials[parameter_id] = answer["trial"]
        values: dict[str, Any] = answer["values"]
        return values

    def receive_trial_result(
        self, parameter_id: int, parameters: dict[str, Any], value: Any, **_: Any
    ) -> None:
        """Tell the study a trial's score."""
        self._study({"do": "tell", "trial": value["trial"], "value": value})
        if self._inner is not None and parameter_id in self._trials:
            plain = {key: each for key, each in parameters.items() if key != "trial"}
            self._inner.receive_trial_result(parameter_id, plain, value["default"])

    def trial_end(self, parameter_id: int, success: bool, **_: Any) -> None:
        """Tell the study that a trial is over, and how."""
        trial = self._trials.pop(parameter_id, None)
        if trial is not None:
            self._study({"do": "end", "trial": trial, "success": success})
            if self._inner is not None:
                self._inner.trial_end(parameter_id, success)

    def import_data(self, data: list[dict[str, Any]]) -> None:
        """Tell the study what came of trials that an earlier manager started."""
        for record in data:
            value = record.get("value")
            if isinstance(value, Mapping) and "trial" in value:
                self._study({"do": "tell", "trial": value["trial"], "value": value})
                self._study({"do": "end", "trial": value["trial"], "success": True})


class StudyAssessor(Assessor):  # type: ignore[misc]
    """An assessor that reports every epoch to the study, whose pruner decides.

    Args:
        server: The command that starts the study's server; the tuner's is taken if it runs.
    """

    def __init__(self, server: Sequence[str]) -> None:
        self._study = connect(server)
        self._told: dict[str, int] = {}

    def assess_trial(self, trial_job_id: str, trial_history: list[Any]) -> AssessResult:
        """Report what is new; say whether the trial is to go on."""
        prune = False
        for value in trial_history[self._told.get(trial_job_id, 0) :]:
            report = {key: value[key] for key in ("trial", "epoch")}
            prune = self._study({"do": "report", **report, "score": value["default"]})["prune"]
        self._told[trial_job_id] = len(trial_history)
        return AssessResult.Bad if prune else AssessResult.Good

    def trial_end(self, trial_job_id: str, success: bool) -> None:
        """Forget a trial that is over."""
        self._told.pop(trial_job_id, None)


Ask = Callable[[Mapping[str, Any]], dict[str, Any]]
_connection: Ask | None = None


def connect(server: Sequence[str]) -> Ask:
    """Start the study's server, once for tuner and assessor; return a function that asks it."""
    global _connection
    if _connection is None:
        # The pipe's end is the server's end: it never outlives this process.
        process = subprocess.Popen(
            list(server), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        turn = threading.Lock()  # tuner and assessor ask from threads of their own

        def ask(request: Mapping[str, Any]) -> dict[str, Any]:
            assert process.stdin is not None and process.stdout is not None
            with turn:
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
            if not line:
                raise RuntimeError("the study's server has ended; its error is above")
            answer: dict[str, Any] = json.loads(line)
            return answer

        _connection = ask
    return _connection


def _make_inner(inner: Mapping[str, Any], known: Mapping[str, Any]) -> Any:
    """Build one of NNI's tuners; a seed is moved on, so that a resumed one repeats nothing."""
    from nni.tools.package_utils.tuner_factory import create_builtin_class_instance

    arguments = {"optimize_mode": known["direction"], **inner["class_args"]}
    if "seed" in arguments:
        arguments["seed"] += len(known["trials"])
    return create_builtin_class_instance(inner["name"], arguments, "tuners")


def _refuse_pickles() -> None:
    """Read messages as plain JSON: NNI's own reader runs code that a message may carry."""

    def load(string: str | None = None, *, fp: Any = None, **_: Any) -> Any:
        return json.loads(string) if string is not None else json.load(fp)

    theirs = serializer.load
    for module in list(sys.modules.values()):
        name = getattr(module, "__name__", "")
        if name.partition(".")[0] == "nni" and getattr(module, "load", None) is theirs:
            module.load = load  # type: ignore[attr-defined]


def _watch_manager(study: Ask) -> None:
    """Keep the study up to date; end this process when the manager is gone.

    An orphan would disturb the next manager.
    """
    manager = os.pidfd_open(int(os.environ["PREFIXNAS_NNI_MANAGER"]))

    def watch() -> None:
        while not select.select([manager], [], [], EVERY)[0]:
            study({"do": "sync"})
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
