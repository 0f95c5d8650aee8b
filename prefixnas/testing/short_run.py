"""One short run of a strategy, and what came of it in plain values that can be compared."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch

from prefixnas.run.events import Event
from prefixnas.run.objective import Objective
from prefixnas.run.recipe import Recipe
from prefixnas.run.run import Budget, Run
from prefixnas.run.search import search
from prefixnas.run.strategy import Found, Strategy
from prefixnas.space.loading import space_from_yaml, space_to_yaml
from prefixnas.space.nodes import Node, Op, children
from prefixnas.space.ops import OPS
from prefixnas.space.space import SearchSpace
from prefixnas.testing.promise import BrokenPromise
from prefixnas.testing.watched import Watched

CLOCK = ("time", "seconds", "began")
"""Keys of events that may differ between equal runs."""


@dataclass
class Outcome:
    """What came of a run, without anything that depends on the clock.

    Attributes:
        architecture: The choices.
        events: All events.
        files: Per file of the run's results, a digest of its bytes.
        alphas: All alphas of all supernets when the search ended.
    """

    architecture: dict[str, str]
    events: list[dict[str, Any]]
    files: dict[str, str]
    alphas: list[list[float]]

    def difference(self, other: Outcome) -> str:
        """Say where two outcomes differ first; an empty text if nowhere."""
        for index, (mine, others) in enumerate(zip(self.events, other.events, strict=False)):
            if mine != others:
                return f"event {index} is {_short(others)} instead of {_short(mine)}"
        if len(self.events) != len(other.events):
            return f"{len(other.events)} events instead of {len(self.events)}"
        for name in ("architecture", "alphas", "files"):
            if getattr(self, name) != getattr(other, name):
                return f"{name}: {getattr(other, name)} instead of {getattr(self, name)}"
        return ""


@dataclass(frozen=True)
class ShortRun:
    """A short run of a strategy on one space, to be repeated under changed conditions.

    Args:
        strategy: The strategy.
        space: The space.
        objective: Makes a fresh objective.
        budget: Steps.
        seed: Seed.
        settings: Options set by hand.
        lie: Turn the sign of all validation scores.
        inspect: Called when the strategy has returned, before training goes on.
    """

    strategy: Strategy
    space: SearchSpace
    objective: Callable[[], Objective]
    budget: Budget = field(default_factory=lambda: Budget(12, 4))
    seed: int = 0
    settings: Mapping[str, str] = field(default_factory=dict)
    lie: bool = False
    inspect: Callable[[Run, Watched, Found], None] | None = None

    def run(self, kills: Sequence[int] = ()) -> Outcome:
        """Run, and kill and resume where the number of written events is one of `kills`."""
        with tempfile.TemporaryDirectory() as folder:
            return self._run(Path(folder), set(kills))

    def _run(self, folder: Path, kills: set[int]) -> Outcome:
        alphas: dict[int, list[list[float]]] = {}
        resume = False
        while True:
            probe = Watched(self.objective(), self.lie)
            watched = _Watched(self.strategy, probe, self.inspect, alphas)

            def on_event(event: Event) -> None:
                written = len((folder / "metrics.jsonl").read_bytes().splitlines())
                if written in kills:
                    kills.remove(written)
                    raise _KilledError

            try:
                run = Run(
                    folder,
                    self.space,
                    cast(Objective, probe),
                    self.budget,
                    self.seed,
                    settings=self.settings,
                    checkpoint_every=3,
                    on_event=on_event,
                    resume=resume,
                )
                result = search(run, watched, Recipe(warmup=2, eval_every=3), baseline="none")
            except _KilledError:
                resume = True
                continue
            files = [folder / "architecture.yaml", *sorted((folder / "adapter").rglob("*"))]
            digests = {
                str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
                for path in files
                if path.is_file()
            }
            events = _events(folder)
            flat = [alpha for index in sorted(alphas) for alpha in alphas[index]]
            return Outcome(result.architecture.choices, events, digests, flat)

    def run_elsewhere(self, hash_seed: int, imports: Sequence[str] = ()) -> Outcome:
        """Run in a fresh Python process.

        Args:
            hash_seed: Its `PYTHONHASHSEED`.
            imports: Modules that it imports first.
        """
        order = {
            "strategy": _reference(type(self.strategy)),
            "options": _options(self.strategy),
            "space": space_to_yaml(self.space),
            "objective": _reference(self.objective),
            "budget": [self.budget.search, self.budget.train],
            "seed": self.seed,
            "settings": dict(self.settings),
            "imports": [*imports, *_modules(self.space.root)],
            "threads": torch.get_num_threads(),
        }
        environment = {
            **os.environ,
            "PYTHONHASHSEED": str(hash_seed),
            "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
        }
        done = subprocess.run(
            [sys.executable, "-c", "from prefixnas.testing.short_run import serve; serve()"],
            input=json.dumps(order),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BrokenPromise("process", f"fails in a fresh process: {done.stderr[-2000:]}")
        return Outcome(**json.loads(done.stdout.splitlines()[-1]))


def serve() -> None:
    """Do what `ShortRun.run_elsewhere` ordered on the standard input, in this process."""
    order = json.load(sys.stdin)
    torch.set_num_threads(order["threads"])
    for module in order["imports"]:
        importlib.import_module(module)
    trial = ShortRun(
        _resolve(order["strategy"])(**order["options"]),
        space_from_yaml(order["space"]),
        _resolve(order["objective"]),
        Budget(*order["budget"]),
        order["seed"],
        order["settings"],
    )
    print(json.dumps(dataclasses.asdict(trial.run())))


class _KilledError(BaseException):
    """Ends a run where no code of the strategy can catch it by accident."""


class _Watched(Strategy):
    def __init__(
        self,
        strategy: Strategy,
        probe: Watched,
        inspect: Callable[[Run, Watched, Found], None] | None,
        alphas: dict[int, list[list[float]]],
    ) -> None:
        self._strategy, self._probe, self._inspect = strategy, probe, inspect
        self._alphas = alphas

    def check(self, space: SearchSpace, settings: Mapping[str, str], budget: Budget) -> None:
        self._strategy.check(space, settings, budget)

    def search(self, run: Run, recipe: Recipe) -> Found:
        try:
            found = self._strategy.search(run, recipe)
        finally:
            # A resumed run skips what is past: the process that trained a net has its alphas.
            for index, watched in enumerate(self._probe.nets):
                if watched.batches:
                    self._alphas[index] = [alpha.tolist() for alpha in watched.net.alphas]
        if self._inspect is not None:
            self._inspect(run, self._probe, found)
        return found


def _events(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    events: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return [
        {key: value for key, value in event.items() if key not in CLOCK}
        for event in events
        if event["event"] != "start"  # says what was asked for, not what came of it
    ]


def _options(strategy: Strategy) -> dict[str, Any]:
    fields: Mapping[str, Any] | None = getattr(strategy, "__dataclass_fields__", None)
    if fields is None:
        raise BrokenPromise("options", f"{type(strategy).__name__} is not a dataclass")
    options = {name: getattr(strategy, name) for name in fields}
    try:
        json.dumps(options)
    except TypeError as error:
        raise BrokenPromise("options", f"the fields are no plain values: {error}") from error
    return options


def _reference(item: Any) -> str:
    module, name = getattr(item, "__module__", "__main__"), getattr(item, "__qualname__", "<")
    if module == "__main__" or "<" in name:
        raise BrokenPromise(
            "process", f"{item!r} must be defined at the top of a module that can be imported"
        )
    return f"{module}:{name}"


def _resolve(reference: str) -> Any:
    module, name = reference.split(":")
    item: Any = importlib.import_module(module)
    for part in name.split("."):
        item = getattr(item, part)
    return item


def _modules(node: Node) -> list[str]:
    own = [OPS.get(node.name).__module__] if isinstance(node, Op) else []
    return sorted({*own, *(name for child in children(node) for name in _modules(child))})


def _short(event: Mapping[str, Any]) -> str:
    text = json.dumps(event)
    return text if len(text) < 160 else f"{text[:157]}..."
