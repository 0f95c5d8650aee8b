"""Two stages: a differentiable search on a proxy, then successive halving on the whole problem.

The first stage trains a supernet where steps are cheap (fewer layers, fewer examples) and says
how likely each architecture is. The second one trains the likeliest on the real problem: all for
a while, then the better half goes on for as much again, until one is left (Jamieson and
Talwalkar, AISTATS 2016). It decides the choices by trial, too, about which a supernet is silent.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from prefixnas import (
    Architecture,
    Budget,
    Found,
    Objective,
    Recipe,
    Run,
    SearchSpace,
    Strategy,
    Supernet,
    UserError,
    option,
)
from prefixnas.base.options import read_pairs
from prefixnas.multitrial.halving import Contest, rounds
from prefixnas.multitrial.proxy import emit_price, price_of
from prefixnas.multitrial.shortlist import probabilities_of, shortlist, widest
from prefixnas.oneshot import RelaxedOptions

from .darts import Darts

COUNTED = 2
"""Steps on which operations are counted, of the proxy and of the whole problem each."""


@dataclass(frozen=True)
class TwoStage(RelaxedOptions, Strategy):
    """Search on a proxy, then train the best architectures by successive halving."""

    proxy: list[str] = option([], "what makes it cheap: layers=2 train=200; none: fewer steps")
    proxy_share: float = option(0.5, "share of the search budget it gets", above=0, below=1)
    proxy_cost: float | None = option(None, "of its step; none: operations are counted", above=0)
    shortlist: int = option(4, "architectures that enter the second stage", at_least=1)
    halving: int = option(2, "one of so many goes on after each round", at_least=2)

    def check(self, space: SearchSpace, settings: Mapping[str, str], budget: Budget) -> None:
        """Refuse options, and a budget that does not reach for both stages."""
        cheaper = self._settings
        if self.proxy_cost is not None and not cheaper:
            raise UserError("key 'proxy_cost': there is no proxy; name what makes one with 'proxy'")
        steps = self._steps(budget, self.proxy_cost or 1.0)
        self._darts().check(space, settings, Budget(steps, 0))
        left, sizes = budget.search - self._share(budget), rounds(self.shortlist, self.halving)
        if (least := self.shortlist * len(sizes)) > left:
            raise UserError(
                f"key 'shortlist': {self.shortlist} architectures need at least {least} steps, the "
                f"second stage has {left}; raise steps, or lower shortlist or proxy_share"
            )

    def check_objective(self, objective: Objective) -> None:
        """Refuse a proxy that the objective does not have."""
        self._darts().check_objective(objective)
        if self.proxy:
            objective.check_proxy(self._settings)

    def check_recipe(self, recipe: Recipe) -> None:
        """Refuse an optimiser that the level cannot search with."""
        self._darts().check_recipe(recipe)

    def search(self, run: Run, recipe: Recipe) -> Found:
        """Rank architectures on the proxy; train the best ones, fewer and fewer of them."""
        settings, darts = self._settings, self._darts()
        proxy = run.objective.proxy(settings) if settings else run.objective
        held = widest(run.space, run.space.settle(run.settings))
        price = self.proxy_cost or 1.0
        if self._counts:
            price = price_of(run, proxy, run.space.first(held), COUNTED)
        steps = self._steps(run.budget, price)
        darts.check(run.space, run.settings, Budget(steps, 0))
        with run.stage("proxy", proxy, steps, price, held):
            net, _ = darts.train_supernet(run, recipe)
        chosen = run.once("shortlist", partial(self._shortlist, run, net))
        left = run.once("left", lambda: run.budget.search - run.spent)

        contest = Contest(run, recipe, [Architecture(each, run.space.name) for each in chosen])
        alive, sizes = list(range(len(chosen))), rounds(len(chosen), self.halving)
        for number, size in enumerate(sizes, 1):
            share = left // len(sizes) // size
            scores = {
                place: contest.train(f"round {number} architecture {place + 1}", place, share)
                for place in alive
            }
            alive = contest.keep_best(scores, math.ceil(size / self.halving))
        if settings:
            run.once("told of the proxy", partial(emit_price, run, price))
        return Found(contest.architectures[alive[0]], optimizer=contest.attach(alive[0]))

    def _darts(self) -> Darts:
        return Darts(
            level=self.level,
            update=self.update,
            relaxation=self.relaxation,
            alpha_learning_rate=self.alpha_learning_rate,
            alpha_warmup=self.alpha_warmup,
            entropy_weight=self.entropy_weight,
            entropy_scale=self.entropy_scale,
            prune_below=0.0,  # what is unlikely may still be among the best k
        )

    def _shortlist(self, run: Run, net: Supernet) -> list[dict[str, str]]:
        held, rng = run.space.settle(run.settings), random.Random(f"shortlist {run.seed}")
        found = shortlist(run.space, probabilities_of(net), held, self.shortlist, rng)
        return [architecture.choices for architecture in found]

    @property
    def _settings(self) -> dict[str, str]:
        return read_pairs(self.proxy, "key 'proxy'")

    @property
    def _counts(self) -> bool:
        return bool(self.proxy) and self.proxy_cost is None

    def _share(self, budget: Budget) -> int:
        return round(self.proxy_share * budget.search)

    def _steps(self, budget: Budget, price: float) -> int:
        return int((self._share(budget) - 2 * COUNTED * self._counts) / price)
