"""Trials that stand in for searches where only what is around them is tested."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefixnas.base.files import write_text
from prefixnas.experiments.trial import RESULT, TrialResult, held, read_trial

SECONDS = "TRIAL_SECONDS"
KEYS = ("learning_rate", "prefix_length", "lora_rank")


def run(
    config: Mapping[str, Any],
    report: Callable[[int, float], None],
    folder: Path,
    *,
    metric: str = "average",
) -> TrialResult:
    """Write the hyper-parameters down, wait, and score the learning rate.

    Every run leaves a line: which process, its GPUs, and when it began and ended.
    """
    with held(folder):
        if (folder / RESULT).is_file():
            return read_trial(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "config.json", json.dumps({key: config[key] for key in KEYS}))
        began = time.monotonic()
        start_worker()
        scores = []
        for epoch in (1, 2):
            time.sleep(float(os.environ.get(SECONDS, "0")) / 2)
            scores.append(config["learning_rate"] * epoch)
            report(epoch, scores[-1])
        if config["learning_rate"] < 0.0015 and os.environ.get("TRIAL_FAILS"):
            raise ValueError("too slow")
        result = TrialResult(scores[-1], 0.5, scores, 2, 7, {"layer0/activation": "relu"})
        write_text(folder / RESULT, json.dumps(asdict(result)))
        line = {
            "trial": folder.name,
            "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "from": began,
            "to": time.monotonic(),
        }
        with (folder.parent / "runs.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        return result


def start_worker() -> None:
    """Start a process that outlives the trial unless somebody ends it."""
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
