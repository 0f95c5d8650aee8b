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
        validation: Average score on the split that is reported; None: it only helped to choose.
        tasks: Validation score by task; empty likewise.
        weights: Numbers that were trained.
        weights_in_use: Those of them that take part in a pass of one task, at most.
        saved_bytes: Most bytes that a training step keeps for its backward passes.
        seconds_a_step: As measured, with whatever else the machine did.
        metrics: By task, what its score is the mean of.
        tests: Score on the split `test` by task, of the tasks that have one.
    """

    selection: float
    validation: float | None
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

    @property
    def said(self) -> str:
        """Its score in a line of progress: on validation data, or what a factor is chosen by."""
        if self.validation is None:
            return f"{self.selection:.3f} on selection data"
        return f"{self.validation:.3f}"

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
            scores = [data["selection"], *data["tasks"].values()]
            scores += (data.get("tests") or {}).values()
            scores += [] if data["validation"] is None else [data["validation"]]
            if not all(isinstance(score, int | float) for score in scores):
                raise TypeError
            return cls(**data)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{path}: no record of a run; remove it to run it again") from error
