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
from dataclasses import dataclass, fields
from functools import partial

from prefixnas.base.errors import UserError
from prefixnas.base.options import option
from prefixnas.multitrial.halving import Contest, rounds
from prefixnas.multitrial.proxy import emit_price, price_of, proxy_settings
from prefixnas.multitrial.shortlist import candidates, probabilities_of, widest
from prefixnas.network.supernet import Supernet
from prefixnas.run.objective import Objective
from prefixnas.run.run import Budget, Run
from prefixnas.run.strategy import Found, Strategy
from prefixnas.run.training import Recipe
from prefixnas.space.architecture import Architecture
from prefixnas.space.space import SearchSpace

from .darts import Darts

COUNTED = 2
"""Steps on which operations are counted, of the proxy and of the whole problem each."""


@dataclass(frozen=True)
class TwoStage(Strategy):
    """Search on a proxy, then train the best architectures by successive halving."""

    proxy: list[str] = option([], "what makes it cheap: layers=2 train=200; none: fewer steps")
    proxy_share: float = option(0.5, "share of the search budget it gets", above=0, below=1)
    proxy_cost: float | None = option(None, "of its step; none: operations are counted", above=0)
    candidates: int = option(4, "architectures that enter the second stage", at_least=1)
    halving: int = option(2, "one of so many goes on after each round", at_least=2)
    level: str = option("joint", "joint, bilevel or second-order: what moves alphas, and when")
    update: str = option("logits", "logits (Adam) or projected (SGD on the simplex)")
    relaxation: str = option("softmax", "softmax, gumbel, gumbel-hard, ste or one-path")
    alpha_learning_rate: float | None = option(None, "of the alphas; none: the update's", above=0)
    alpha_warmup: float = option(0.2, "share for the weights alone", at_least=0, at_most=1)
    entropy_weight: float = option(0.05, "lambda of eq. 4, at the end of the search", at_least=0)

    def check(self, space: SearchSpace, settings: Mapping[str, str], budget: Budget) -> None:
        """Refuse options, and a budget that does not reach for both stages."""
        proxy_settings(self.proxy)
        if self.proxy_cost is not None and not self.proxy:
            raise UserError("key 'proxy_cost': there is no proxy; name what makes one with 'proxy'")
        steps = self._steps(budget, self.proxy_cost or 1.0)
        self._darts().check(space, settings, Budget(steps, 0))
        left, sizes = budget.search - self._share(budget), rounds(self.candidates, self.halving)
        if (least := self.candidates * len(sizes)) > left:
            raise UserError(
                f"key 'candidates': {self.candidates} candidates need at least {least} steps, the "
                f"second stage has {left}; raise steps, or lower candidates or proxy_share"
            )

    def check_objective(self, objective: Objective) -> None:
        """Refuse a proxy that the objective does not have."""
        self._darts().check_objective(objective)
        if self.proxy:
            objective.check_proxy(proxy_settings(self.proxy))

    def search(self, run: Run, recipe: Recipe) -> Found:
        """Rank architectures on the proxy; train the best ones, fewer and fewer of them."""
        settings, darts = proxy_settings(self.proxy), self._darts()
        proxy = run.objective.proxy(settings) if settings else run.objective
        held = widest(run.space, run.space.settle(run.settings))
        price = self.proxy_cost or 1.0
        if self._counts:
            price = price_of(run, proxy, run.space.first(held), COUNTED)
        steps = self._steps(run.budget, price)
        darts.check(run.space, run.settings, Budget(steps, 0))
        with run.stage("proxy", proxy, steps, price, held):
            net, _ = darts.train_supernet(run, recipe)
        chosen = run.once("candidates", partial(self._candidates, run, net))
        left = run.once("left", lambda: run.budget.search - run.spent)

        contest = Contest(run, recipe, [Architecture(each, run.space.name) for each in chosen])
        alive, sizes = list(range(len(chosen))), rounds(len(chosen), self.halving)
        for number, size in enumerate(sizes, 1):
            share = left // len(sizes) // size
            scores = {
                place: contest.train(f"round {number} candidate {place + 1}", place, share)
                for place in alive
            }
            alive = contest.keep_best(scores, math.ceil(size / self.halving))
        if settings:
            run.once("told of the proxy", partial(emit_price, run, price))
        return Found(contest.architectures[alive[0]], optimizer=contest.attach(alive[0]))

    def _darts(self) -> Darts:
        common = {entry.name for entry in fields(self)} & {entry.name for entry in fields(Darts)}
        # Nothing is pruned: what is unlikely may still be among the best k.
        return Darts(prune_below=0.0, **{name: getattr(self, name) for name in common})

    def _candidates(self, run: Run, net: Supernet) -> list[dict[str, str]]:
        held, rng = run.space.settle(run.settings), random.Random(f"candidates {run.seed}")
        found = candidates(run.space, probabilities_of(net), held, self.candidates, rng)
        return [architecture.choices for architecture in found]

    @property
    def _counts(self) -> bool:
        return bool(self.proxy) and self.proxy_cost is None

    def _share(self, budget: Budget) -> int:
        return round(self.proxy_share * budget.search)

    def _steps(self, budget: Budget, price: float) -> int:
        return int((self._share(budget) - 2 * COUNTED * self._counts) / price)
