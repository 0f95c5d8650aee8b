"""What is kept of a finished run of a table."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from prefixnas.base.errors import UserError
from prefixnas.base.files import write_text


@dataclass(frozen=True)
class RunRecord:
    """What a finished run came to; None: it was kept by a version that did not measure it.

    Attributes:
        selection: Average score on the split that the factor of the learning rates is chosen by.
        validation: Average score on the split that is reported.
        tasks: Validation score by task.
        weights: Numbers that were trained.
        weights_in_use: Those of them that take part in a pass of one task, at most.
        saved_bytes: Most bytes that a training step keeps for its backward passes.
        seconds_a_step: As measured, with whatever else the machine did.
        metrics: By task, what its score is the mean of.
        tests: Score on the split `test` by task, of the tasks that have one.
    """

    selection: float
    validation: float
    tasks: Mapping[str, float]
    weights: int
    weights_in_use: int | None = None
    saved_bytes: int | None = None
    seconds_a_step: float | None = None
    metrics: Mapping[str, Sequence[str]] | None = None
    tests: Mapping[str, float] | None = None

    @property
    def test(self) -> float | None:
        """The average of `tests`."""
        return fmean(self.tests.values()) if self.tests else None

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        write_text(path, json.dumps(dataclasses.asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> RunRecord:
        """Read what `write` wrote.

        Raises:
            UserError: It is damaged.
        """
        try:
            data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            scores = [data["selection"], data["validation"], *data["tasks"].values()]
            scores += (data.get("tests") or {}).values()
            if not all(isinstance(score, int | float) for score in scores):
                raise TypeError
            return cls(**data)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{path}: no record of a run; remove it to run it again") from error
