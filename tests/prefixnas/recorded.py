"""A small run, written by hand: its events, its result, its folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from prefixnas.run import events as run_events
from prefixnas.run.events import Alpha, End, Evaluation, Event, Prune, Start, Step, Warning
from prefixnas.run.record import Record
from prefixnas.space.architecture import Architecture
from prefixnas.space.nodes import Choice, Seq, Stack
from prefixnas.space.space import SearchSpace

SPACE = SearchSpace("small", Stack(2, Seq("linear", Choice("act", ["relu", "tanh"]))))
CHOICES = {"layer0/act": "tanh", "layer1/act": "relu"}
COURSE = [[0.5, 0.5], [0.3, 0.7], [0.0, 1.0]]
TASKS = ("sst2", "a<b> & $x_1$")


def column(*scores: float) -> dict[str, Any]:
    return {
        "scores": {task: {"accuracy": s} for task, s in zip(TASKS, scores, strict=True)},
        "task_scores": dict(zip(TASKS, scores, strict=True)),
        "score": sum(scores) / len(scores),
    }


UNTOUCHED, MIXTURE = column(0.5, 0.25), column(0.75, 0.25)
ARGMAX, TRAINED = column(0.6, 0.2), column(0.75, 0.95)
COLUMNS = {
    "untouched": UNTOUCHED,
    "mixture": MIXTURE,
    "argmax child": ARGMAX,
    "trained child": TRAINED,
    "alone": None,
}


def steps(phase: str, total: int, began: float, *more: float) -> list[Event]:
    return [
        replace(
            Step.of(phase, n, total, {TASKS[0]: 1 - 0.1 * n, TASKS[1]: 2 - 0.1 * n}, 1e-3, *more),
            time=began + n + 1,
        )
        for n in range(total)
    ]


def evaluated(name: str, time: float, scores: dict[str, Any]) -> Event:
    return Evaluation(name, "validation", **scores, time=time)


def events(alphas: bool = True) -> list[Event]:
    found: list[Event] = [
        Start("small", "darts", "toy", 3, {"search": 3, "train": 4}),
        evaluated("untouched", 2.0, UNTOUCHED),
        *steps("search", 3, 2.0, *([1.2] if alphas else [])),
    ]
    if alphas:
        for n, (relu, tanh) in enumerate(COURSE):
            shares = {
                "layer0/act": {"relu": relu, "tanh": tanh},
                "layer1/act": {"relu": 0.6, "tanh": 0.4},
            }
            norm = None if n == 0 else 0.1 * n
            more = {"gradient_norm": norm, "variance": 0.01 * n}
            found.append(Alpha("search", 5 * n, shares, **more, time=5.0))
        found.append(Prune(2, [("layer0/act", "relu")], time=5.0))
        found.append(evaluated("mixture", 7.0, MIXTURE))
    return found


def ending() -> list[Event]:
    return [
        run_events.Architecture(CHOICES, time=7.0),
        evaluated("argmax child", 8.0, ARGMAX),
        *steps("train", 4, 8.0),
        evaluated("trained child", 13.0, TRAINED),
        Warning("<script>bad()</script> [red]", time=13.0),
        End(13.0, time=13.0),
    ]


def write(folder: Path, lines: list[Event], finished: bool = False, tail: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    text = "".join(json.dumps(line.to_json()) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text + tail, encoding="utf-8")
    config = {"space": yaml.safe_load(SPACE_TEXT), "note": "</pre><b>bold</b>", "seed": 3}
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    if finished:
        Architecture(CHOICES, "small").save(folder / "architecture.yaml")
        result = {
            "columns": COLUMNS,
            "architecture": CHOICES,
            "space": "small",
            "steps": {"search": 3, "total": 7},
            "seed": 3,
            "seconds": 13.0,
        }
        (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return folder


SPACE_TEXT = """
name: small
stack:
  layers: 2
  cell: [linear, {choice: {key: act, options: [relu, tanh]}}]
"""


def in_memory(lines: list[Event]) -> Record:
    return Record(Path("run"), lines, None, {}, None)
