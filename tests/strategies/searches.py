"""Every shipped search in every mode, small: what the contracts are run over."""

from __future__ import annotations

from prefixnas.network.relaxations import RELAXATIONS
from prefixnas.run.strategy import Strategy
from prefixnas.strategies.darts import Darts
from prefixnas.strategies.evolution import Evolution
from prefixnas.strategies.random import RandomSearch
from prefixnas.strategies.surrogate import Surrogate
from prefixnas.strategies.tpe import Tpe
from prefixnas.strategies.two_stage import TwoStage

SEARCHES: dict[str, Strategy] = {
    **{f"darts-{name}": Darts(relaxation=name) for name in RELAXATIONS.names()},
    "darts-bilevel": Darts(level="bilevel"),
    "darts-second-order": Darts(level="second-order", prune_below=0),
    "darts-projected": Darts(update="projected"),
    "darts-perturbation": Darts(selection="perturbation"),
    "two-stage": TwoStage(shortlist=2),
    "random": RandomSearch(trials=4),
    "evolution": Evolution(trials=6, population=3, sample=2),
    "tpe": Tpe(trials=6, startup=3),
    "surrogate": Surrogate(trials=6, startup=3),
    "evolution-one-shot": Evolution(trials=6, population=3, sample=2, weights="one-shot"),
}
