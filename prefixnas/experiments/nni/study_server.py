"""The study beside NNI's tuner: answers its questions, one line of JSON each, over a pipe.

It runs in the project's Python and ends when the pipe does. It holds a claim on every trial that it
handed to NNI; what was not told when it ends is lost, and found again by the next one. What stands
in a run directory counts before what a message says.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prefixnas.base.console import guarded
from prefixnas.base.errors import UserError
from prefixnas.experiments.claim import Claim
from prefixnas.experiments.experiment import read_order
from prefixnas.experiments.nni.space import pack, unpack
from prefixnas.experiments.rows import COMPLETE, RUNNING, WAITING
from prefixnas.experiments.study import Study
from prefixnas.experiments.trial import RESULT, Pruned, TrialResult, is_free, read_trial

RECOVERED = "recovered.json"
"""Numbers of the trials that NNI starts again by itself, as the manager was told to go on."""

CHOICES = "choices"
"""The architecture in a trial's message, as JSON; beside it stands a text for NNI's page."""


def note_error(folder: Path, error: BaseException) -> None:
    """Write down why a trial failed, beside its run directory."""
    path = _error_path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    path.write_text(f"{kind}{error}".partition("\n")[0] + "\n", encoding="utf-8")


def _error_path(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.error")


class StudyServer:
    """Answers the tuner.

    Args:
        study: The study.
        recovered: Numbers of trials that NNI starts again by itself.
    """

    def __init__(self, study: Study, recovered: Sequence[int] = ()) -> None:
        self._study = study
        self._hyperparameters = study.experiment.hyperparameters
        self._claims: dict[int, Claim] = {}
        self._again: list[Claim] = []
        self._pruned: set[int] = set()
        self._values: dict[int, Mapping[str, Any]] = {}
        self._ended: set[int] = set()
        for row in study.rows():
            if row.state == RUNNING and (claim := study.adopt(row.number)) is not None:
                _error_path(claim.folder).unlink(missing_ok=True)
                self._claims[row.number] = claim
                if row.number not in recovered and is_free(claim.folder):
                    self._again.append(claim)
        self.sync({})

    def close(self) -> None:
        """Let go of all trials."""
        for number in list(self._values):
            self._finish_elsewhere(number)
        for claim in self._claims.values():
            claim.close()

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answer one question: `do` names the method that does it."""
        method: Callable[[Mapping[str, Any]], dict[str, Any]] = getattr(self, request["do"])
        return method(request)

    def next(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Hand a trial out: one that was lost, else a new one of the study's sampler.

        Where one of NNI's tuners proposes (`own` is false), it is asked for a proposal.
        """
        self.sync({})
        if self._again:
            return self._hand_out(self._again.pop(0))
        if not request["own"]:
            return {"propose": True} if self._waiting() is not None else _NO_MORE
        claim = self._study.claim()
        return self._hand_out(claim) if claim is not None else _NO_MORE

    def take(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Take a proposal of one of NNI's tuners into the study, unless there was the same."""
        answers = unpack(self._hyperparameters, request["values"])
        if any(row.params == answers for row in self._study.rows()):
            return {"repeated": True}
        number = self._waiting()
        claim = None if number is None else self._study.adopt(number, answers)
        return self._hand_out(claim) if claim is not None else {"repeated": True}

    def report(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Note an epoch's score; say whether the pruner has seen enough."""
        number = request["trial"]
        if (claim := self._claims.get(number)) is None:
            return {"prune": False}
        try:
            claim.report(request["epoch"], request["score"])
        except Pruned:
            self._pruned.add(number)
        return {"prune": number in self._pruned}

    def tell(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Note a trial's result."""
        number = request["trial"]
        if (claim := self._claims.get(number)) is None:
            return {}
        if (claim.folder / RESULT).is_file():
            del self._claims[number]
            claim.finish(read_trial(claim.folder))
        else:  # it ran on another machine
            self._values[number] = request["value"]
            if number in self._ended:
                self._finish_elsewhere(number)
        return {}

    def end(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Note how a trial that this manager started was over."""
        number = request["trial"]
        claim = self._claims.get(number)
        if claim is None:
            return {}  # told already
        if request["success"] and not (claim.folder / RESULT).is_file():
            self._ended.add(number)
            if number in self._values:
                self._finish_elsewhere(number)
            return {}
        del self._claims[number]
        if (claim.folder / RESULT).is_file():
            claim.finish(read_trial(claim.folder))
        elif number in self._pruned:
            claim.finish(self._cut_short(number, claim))
        else:
            claim.fail(_read_error(claim.folder) or "its process was ended")
        return {}

    def known(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """Return the complete trials in NNI's form, and the direction of the study."""
        complete = [row for row in self._study.rows() if row.state == COMPLETE]
        trials = [
            {"parameter": pack(self._hyperparameters, row.params), "value": row.score}
            for row in complete
        ]
        return {"trials": trials, "direction": self._study.experiment.target.direction}

    def sync(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """Note trials whose end NNI says nothing about: those that an earlier manager started."""
        for number, claim in list(self._claims.items()):
            if not is_free(claim.folder):
                continue
            if (claim.folder / RESULT).is_file():
                claim.finish(read_trial(claim.folder))
            elif error := _read_error(claim.folder):
                claim.fail(error)
            else:
                continue
            del self._claims[number]
            self._again = [each for each in self._again if each is not claim]
        return {}

    def _hand_out(self, claim: Claim) -> dict[str, Any]:
        self._claims[claim.number] = claim
        _error_path(claim.folder).unlink(missing_ok=True)
        values = pack(self._hyperparameters, claim.params)
        return {"trial": claim.number, "values": {"trial": claim.number, **values}}

    def _waiting(self) -> int | None:
        trials = self._study.experiment.trials
        rows = (row for row in self._study.rows() if row.state == WAITING)
        return next((row.number for row in rows if row.number < trials), None)

    def _cut_short(self, number: int, claim: Claim) -> TrialResult:
        scores = self._study.row(number).scores
        steps = len(scores) * int(claim.config()["eval_every"])
        return TrialResult(scores[-1], None, scores, steps, pruned=True)

    def _finish_elsewhere(self, number: int) -> None:
        """Note what came of a trial on another machine.

        Its result and its epochs take different ways and overtake each other; its end comes after
        the last epoch, so that result and end are waited for.
        """
        value = self._values.pop(number)
        result = TrialResult(
            value["default"],
            value["validation"],
            self._study.row(number).scores,
            value["steps"],
            value["parameters"],
            _architecture(value),
        )
        self._claims.pop(number).finish(result)


_NO_MORE = {"reason": "the study has all its trials"}


def _architecture(value: Mapping[str, Any]) -> dict[str, str]:
    """Return the architecture of a trial's message; versions before sent the text alone."""
    if CHOICES in value:
        choices: dict[str, str] = json.loads(value[CHOICES])
        return choices
    pairs = (pair.partition("=") for pair in value["architecture"].split(", ") if pair)
    return {name: option for name, _, option in pairs}


def _read_error(folder: Path) -> str:
    path = _error_path(folder)
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def main(argv: Sequence[str]) -> int:
    """Serve the study that the settings' file names, until the pipe ends."""
    path = Path(argv[0])
    settings = json.loads(path.read_text(encoding="utf-8"))
    recovered = path.with_name(RECOVERED)
    numbers = json.loads(recovered.read_text(encoding="utf-8")) if recovered.is_file() else []
    server = StudyServer(Study.open(read_order(settings), Path(settings["folder"])), numbers)
    for line in sys.stdin:
        print(json.dumps(server.answer(json.loads(line))), flush=True)
    server.close()
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main, None))
