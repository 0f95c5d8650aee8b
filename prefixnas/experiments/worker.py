"""A worker of a study, as a process: `python -m prefixnas.experiments.worker FOLDER`.

It takes up one trial after the other until there is none left. It ends with the process that
started it, whatever ended that one: its standard input, which the experiment comes from, closes
then. What it was at is taken up again by whoever goes on with the study.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from prefixnas.base.console import guarded
from prefixnas.base.errors import RunLost, UserError
from prefixnas.base.processes import end_with_parent, first_line_of_input
from prefixnas.experiments.claim import Claim
from prefixnas.experiments.experiment import read_order
from prefixnas.experiments.study import Study
from prefixnas.experiments.trial import Busy, run_trial

POLL = 0.5
"""Seconds between looks at trials that other processes may lose."""

CRASHES = 3
"""How often a trial may take a process with it (no memory left, say) before it has failed."""


def main(argv: Sequence[str]) -> int:
    """Work on a study."""
    order = json.loads(first_line_of_input())
    end_with_parent()

    def command(argv: Sequence[str]) -> int:
        work(Study.open(read_order(order), Path(argv[0])))
        return 0

    return guarded(command, argv)


def work(study: Study) -> None:
    """Run trials until there are none left to take up or to wait for."""
    while True:
        claim = study.claim()
        if claim is not None:
            run_claim(study, claim)
        elif study.open_elsewhere:
            time.sleep(POLL)
        else:
            return


def run_claim(study: Study, claim: Claim) -> None:
    """Run one trial and tell the study; one that fails stops nothing."""
    print(f"trial {claim.number}: {claim.folder}", flush=True)
    try:
        metric = study.experiment.target.metric
        result = run_trial(claim.config(), claim.report, claim.folder, metric=metric)
    except Busy:
        claim.close()
        time.sleep(POLL)
    except RunLost as error:
        claim.close()  # taken up again, from its last checkpoint
        study.crashed(os.getpid(), str(error).partition(";")[0], CRASHES)
    except UserError as error:
        _stop_if_full(claim, error)
        claim.fail(str(error))
    except Exception as error:
        _stop_if_full(claim, error)
        traceback.print_exc()
        text = str(error).partition("\n")[0]
        claim.fail(f"{type(error).__name__}: {text}" if text else type(error).__name__)
    else:
        claim.finish(result)
    _free()


def _stop_if_full(claim: Claim, error: Exception) -> None:
    """Let the trial wait for room: a full disk is not its fault, and the next one would fail, too.

    Raises:
        UserError: The disk is full.
    """
    cause = error.__cause__ or error
    if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        claim.close()
        where = error if isinstance(error, UserError) else f"{claim.folder}: {cause.strerror}"
        raise UserError(f"{where}; make room, then --resume goes on") from error


def _free() -> None:
    """Give back what a trial held of the accelerator."""
    gc.collect()
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
