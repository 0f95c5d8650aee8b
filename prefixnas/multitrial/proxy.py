"""A cheaper stand-in for an objective, and what a step on it costs next to the real one's."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch.utils.flop_counter import FlopCounterMode

from prefixnas.base.errors import UserError, unknown
from prefixnas.network.supernet import build_child
from prefixnas.run import events
from prefixnas.run.objective import Objective
from prefixnas.run.record import read_record
from prefixnas.run.run import Run
from prefixnas.space.architecture import Architecture

KEY = "key 'proxy'"


def whole_numbers(settings: Mapping[str, str], allowed: Collection[str]) -> dict[str, int]:
    """Read settings that are all whole numbers of at least 1, for an objective's `check_proxy`.

    Raises:
        UserError: An unknown name, with the nearest allowed one, or another value.
    """
    numbers = {}
    for name, value in settings.items():
        if name not in allowed:
            raise unknown("setting", name, allowed, KEY)
        if not value.isascii() or not value.isdecimal() or int(value) < 1:
            raise UserError(f"{KEY}: {name!r} must be a whole number of at least 1, not {value!r}")
        numbers[name] = int(value)
    return numbers


class StepCost:
    """Floating-point operations of training steps, counted; a part of a checkpoint."""

    def __init__(self) -> None:
        self.operations = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the sum."""
        return {"operations": self.operations}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore it."""
        self.operations = state["operations"]


def count_operations(run: Run, architecture: Architecture, steps: int) -> float:
    """Return the floating-point operations of a training step with a fresh child.

    The mean over `steps` steps, which count against the search budget and train nothing. Matrix
    products and convolutions are counted, which is what `torch.utils.flop_counter` knows on every
    device. The number follows from the seed alone, where a clock would say something else each
    time.
    """
    run.reset(build_child(run.space, architecture, run.objective.width))
    cost = StepCost()
    for _ in run.steps("operations", steps, {"cost": cost}):
        with FlopCounterMode(display=False) as counter:
            run.objective.backward("train")
        cost.operations += counter.get_total_flops()
    for group in run.objective.parameters():
        for weight in group["params"]:
            weight.grad = None
    return run.once("operations", lambda: cost.operations / steps)


def price_of(run: Run, proxy: Objective, architecture: Architecture, steps: int) -> float:
    """Return what a step on `proxy` costs, in steps of the run's objective, by their operations.

    The steps that are counted, `steps` of each, count in full against the search budget.

    Raises:
        UserError: One of the two has no operations that could be counted.
    """
    whole = count_operations(run, architecture, steps)
    with run.stage("counting", proxy, steps):
        reduced = count_operations(run, architecture, steps)
    if not whole or not reduced:
        raise UserError("key 'proxy_cost': no operations could be counted, so give a number")
    return reduced / whole


def emit_price(run: Run, price: float) -> None:
    """Say what a step on the proxy counted for, and how long steps really took."""
    timing = read_record(run.folder).timing()
    seconds: dict[str, float | None] = {}
    for name, begins in (("proxy", "search"), ("whole", "round")):
        taken = [pair for phase, pair in timing.items() if phase.startswith(begins) and pair[0]]
        count = sum(steps for steps, _ in taken)
        seconds[name] = round(sum(spent for _, spent in taken) / count, 4) if count else None
    run.emit(events.Proxy(price, seconds))
