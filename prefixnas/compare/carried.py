"""What one problem trained, evaluated on another one without any training there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from prefixnas.base.errors import UserError
from prefixnas.base.files import parse_json, write_text
from prefixnas.launch.config import read_config
from prefixnas.launch.plan import plan_run, resolve_run
from prefixnas.network.supernet import build_child
from prefixnas.run.run import Run
from prefixnas.run.search import search


def carry_over(source: Path, target: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Score the trained child of a run on another problem, and write the score to a file.

    Of the objective's own weights those are taken whose name and shape fit; others (heads of tasks
    that the source does not have) stay as drawn by the seed.

    Args:
        source: A finished run without a baseline.
        target: Resolved configuration of a run on the other problem.
        path: Where the score goes; if it is there already, it is read.

    Returns:
        `score`, `task_scores`, `carried` and `fresh` (numbers of tensors).

    Raises:
        UserError: The modules of the two problems do not have the same width, or the file there is
            damaged.
    """
    if path.is_file():
        return _kept(path)
    run, architecture = _opened(source)
    assert run.module is not None
    weights, trained = run.module.state_dict(), run.objective.state_dict()
    plan = plan_run(resolve_run([("target", target)]))
    objective = plan.objective.build(plan.budget.whole, plan.run.seed)
    if objective.width != run.objective.width:
        raise UserError(
            f"{source}: its module is {run.objective.width} wide, that of {path.parent.parent.name}"
            f" is {objective.width}: nothing can be carried over"
        )
    module = build_child(run.space, architecture, objective.width)
    objective.reset(module, plan.run.seed)
    module.load_state_dict(weights)
    state, carried, fresh = taken_over(objective.state_dict(), trained)
    objective.load_state_dict(state)
    evaluation = objective.evaluate("validation")
    found = {
        "score": evaluation.score,
        "task_scores": dict(evaluation.task_scores),
        "carried": carried,
        "fresh": fresh,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(found, indent=2) + "\n")
    return found


def taken_over(own: Any, other: Any) -> tuple[Any, int, int]:
    """Replace the tensors of a nested state by those of another one of the same name and shape.

    Returns:
        The state, the number of tensors replaced, and of those that are as before.
    """
    if isinstance(own, Tensor):
        fits = isinstance(other, Tensor) and other.shape == own.shape
        return (other.to(own), 1, 0) if fits else (own, 0, 1)
    if not isinstance(own, Mapping):
        return own, 0, 0
    known = other if isinstance(other, Mapping) else {}
    parts = {key: taken_over(value, known.get(key)) for key, value in own.items()}
    return (
        {key: part for key, (part, _, _) in parts.items()},
        sum(carried for _, carried, _ in parts.values()),
        sum(fresh for _, _, fresh in parts.values()),
    )


def _opened(folder: Path) -> tuple[Run, Any]:
    """Return a finished run as it stood at its end, and its architecture; nothing is trained."""
    path = folder / "config.yaml"
    plan = plan_run(resolve_run([(str(path), read_config(path))]))
    objective = plan.objective.build(plan.budget.whole, plan.run.seed)
    run = plan.open(folder, objective, resume=True)
    return run, search(run, plan.strategy, plan.run, baseline="none").architecture


def _kept(path: Path) -> dict[str, Any]:
    """Read what was measured before."""
    try:
        kept = parse_json(path.read_text(encoding="utf-8"))
    except ValueError:
        kept = None
    if not isinstance(kept, dict) or not isinstance(kept.get("score"), float | int):
        raise UserError(f"{path}: damaged: it holds no score; take it away to have it taken again")
    return kept
