"""Building a problem once before any run on it, in a process of its own, so that mistakes show.

The process that the user started imports no torch, and what a build leaves in memory ends with it.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefixnas.base.console import guarded
from prefixnas.base.errors import UserError
from prefixnas.base.files import write_text
from prefixnas.base.processes import Child, end_with_parent
from prefixnas.launch.config import dump_config, read_config
from prefixnas.launch.plan import RunPlan, plan_run, resolve_run
from prefixnas.report.trackers import check_installed
from prefixnas.run.evaluation import AVERAGE, check_metric
from prefixnas.run.objective import Objective, fit_space


def check_problem(
    configs: Sequence[Mapping[str, Any]], metric: str = AVERAGE, where: str = ""
) -> None:
    """Build the problem that several runs share, and try the space of each of them on it.

    Args:
        configs: Resolved configurations.
        metric: What will count; a task's name is looked for among the tasks of the first one.
        where: The file that names the metric.

    Raises:
        UserError: A model, a task or a space is not usable, or the metric is no task.
    """
    if not configs:
        return
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.yaml" for number in range(len(configs))]
        for file, values in zip(files, configs, strict=True):
            write_text(file, dump_config(values))
        child = Child(__name__, [metric, where, *map(str, files)], Path(folder) / "log")
        try:
            if child.wait() != 0:
                raise UserError(child.error())
        finally:
            child.stop()


def _check(argv: Sequence[str]) -> int:
    metric, where, *paths = argv
    objective: Objective | None = None
    for path in paths:
        plan = plan_run(resolve_run([(path, read_config(Path(path)))]))
        check_installed(plan.run.report_to)
        objective = objective or plan.objective.build(plan.budget.whole, plan.run.seed)
        try:
            plan.fit(objective)
        except UserError as error:
            raise UserError(f"space {plan.run.space!r}: {error}") from error
        if path == paths[0]:
            _check_metric(metric, where, plan, objective)
    return 0


def _check_metric(metric: str, where: str, plan: RunPlan, objective: Objective) -> None:
    """Look for a task of that name among those of a training batch."""
    from prefixnas.network.child import build_child

    if metric == AVERAGE:
        return
    module = None
    if not objective.optional:
        space = fit_space(plan.space, objective)
        first = space.first(space.settle(plan.run.settings))
        module = build_child(space, first, objective.width)
    objective.reset(module, plan.run.seed)
    check_metric(metric, objective.backward("train"), f"{where}: objective")


if __name__ == "__main__":
    end_with_parent()
    sys.exit(guarded(_check, sys.argv[1:]))
