"""The trial's side of NNI 3.0.

nni itself is never imported by a trial, and nothing is unpickled. What cannot be delivered is not
worth a trial: a manager that is gone is left alone, the results are in the run directory.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Any
from urllib.error import HTTPError

from prefixnas.experiments.nni.rest import send

_NOT_YET = 408


class Channel:
    """The connection of one trial to its manager.

    Args:
        url: Where NNI listens for this trial; by default from NNI's environment variable.
        job: NNI's name for the trial; by default from NNI's environment variable.
    """

    def __init__(self, url: str | None = None, job: str | None = None) -> None:
        self._url = url or os.environ["NNI_TRIAL_COMMAND_CHANNEL"]
        self._job = job or os.environ["NNI_TRIAL_JOB_ID"]
        self._parameter_id: Any = None
        self._sequence = 0
        self.lost = False

    def parameters(self, patience: float = 120.0) -> dict[str, Any]:
        """Ask for the trial's hyper-parameters.

        Args:
            patience: Seconds to go on asking.

        Raises:
            OSError: The manager does not answer in that time.
        """
        deadline = time.monotonic() + patience
        send("PUT", self._url, {"type": "request_parameter"})
        while True:
            try:
                record = json.loads(json.loads(send("GET", self._url))["parameter"])
                break
            except HTTPError as error:
                if error.code != _NOT_YET or time.monotonic() > deadline:
                    raise
        self._parameter_id = record["parameter_id"]
        parameters: dict[str, Any] = record["parameters"]
        return parameters

    def intermediate(self, value: Mapping[str, Any]) -> bool:
        """Report a result on the way; tell whether it was delivered."""
        delivered = self._metric("PERIODICAL", self._sequence, value)
        self._sequence += 1
        return delivered

    def final(self, value: Mapping[str, Any]) -> bool:
        """Report the result; tell whether it was delivered."""
        return self._metric("FINAL", 0, value)

    def _metric(self, kind: str, sequence: int, value: Mapping[str, Any]) -> bool:
        record = {
            "parameter_id": self._parameter_id,
            "trial_job_id": self._job,
            "type": kind,
            "sequence": sequence,
            "value": json.dumps(value),
        }
        try:
            send("PUT", self._url, {"type": "metric", "metric": json.dumps(record)})
        except OSError as error:
            if not self.lost:
                print(f"not delivered to NNI: {error}; the run directory has it", flush=True)
            self.lost = True
            return False
        return True
