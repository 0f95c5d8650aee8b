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
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from prefixnas.base.console import guarded
from prefixnas.base.errors import RunLost, UserError
from prefixnas.base.files import load_yaml
from prefixnas.experiments.claim import Claim
from prefixnas.experiments.experiment import AVERAGE, Experiment, read_experiment
from prefixnas.experiments.hyperparameters import corners
from prefixnas.experiments.study import Study
from prefixnas.experiments.trial import Busy, check_metric, run_trial

POLL = 0.5
"""Seconds between looks at trials that other processes may lose."""

CRASHES = 3
"""How often a trial may take a process with it (no memory left, say) before it has failed."""

CHECK = "--check"


def main(argv: Sequence[str]) -> int:
    """Work on a study, or check its problem once."""
    line = _line_of_input()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    data = json.loads(line)
    return guarded(lambda argv: _main(argv, data), argv)


def _main(argv: Sequence[str], data: dict[str, str]) -> int:
    given = load_yaml(data["experiment"], data["where"])
    experiment = read_experiment([(data["where"], given)], data["where"])
    if argv[0] == CHECK:
        check(experiment)
    else:
        work(Study.open(experiment, Path(argv[0])))
    return 0


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


def check(experiment: Experiment) -> None:
    """Build the problem of an experiment once, to find mistakes before any trial does.

    Raises:
        UserError: A model, a task or a space is not usable, or the metric is no task.
    """
    from prefixnas.launch.plan import plan_run, resolve_run
    from prefixnas.network.supernet import build_child
    from prefixnas.run.objective import fit_space

    values = experiment.resolve(next(corners(experiment.hyperparameters)))
    options, values = resolve_run([(experiment.where, values)])
    plan = plan_run(options, values)
    objective = plan.build()
    if experiment.target.metric == AVERAGE:
        return
    module = None
    if not objective.optional:
        space = fit_space(plan.space, objective)
        first = space.first(space.settle(plan.run.settings))
        module = build_child(space, first, objective.width)
    objective.reset(module, plan.run.seed)
    tasks = objective.backward("train")
    check_metric(experiment.target.metric, tasks, f"{experiment.where}: objective")


def _free() -> None:
    """Give back what a trial held of the accelerator."""
    gc.collect()
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _line_of_input() -> bytes:
    """Read a line, unbuffered: a thread in the buffer would stop the interpreter from ending."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            os._exit(1)
        line += byte
    return line


def _end_with_parent() -> None:
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
