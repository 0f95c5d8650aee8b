"""DARTS: differentiable search by gradient on relaxed choices.

`joint` is Algorithm 1 of PEML, by one loss; `bilevel` and `second-order` are DARTS (Liu, Simonyan,
Yang, ICLR 2019), in turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from prefixnas import (
    Budget,
    Found,
    Objective,
    Recipe,
    Run,
    SearchSpace,
    Strategy,
    Supernet,
    UserError,
    WeightOptimizer,
    oneshot,
    option,
)
from prefixnas.run import events
from prefixnas.run.checkpoint import Stateful
from prefixnas.run.training import Best


@dataclass(frozen=True)
class Darts(oneshot.RelaxedOptions, Strategy):
    """Differentiable search: joint (Algorithm 1 of the paper), bilevel or second order."""

    selection: str = option("argmax", "argmax or perturbation (DARTS-PT)")
    entropy_schedule: Literal["constant", "linear", "cosine"] = option("linear", "how lambda grows")
    temperature_start: float | None = option(
        None, "first; none: the relaxation's", at_least=1e-3, at_most=1000
    )
    temperature_end: float | None = option(
        None, "last; none: the relaxation's", at_least=1e-3, at_most=1000
    )
    prune_below: float = option(0.05, "drop what is less probable than this", at_least=0, below=1)
    prune_to: float = option(1.0, "share of candidates left at the end", at_least=0, at_most=1)
    tune_steps: int = option(0, "perturbation: training steps after each decision", at_least=0)
    random_order: bool = option(False, "perturbation: take decisions in a random order")
    settled_records: int = option(0, "stop when settled for so many records; 0: never", at_least=0)
    settled_within: float = option(0.01, "settled: most that a probability moves", at_least=0)
    collapse_above: float = option(1.0, "stop above this share of weak leaders", at_least=0)
    log_every: int = option(5, "steps between two records of the alphas", at_least=1)
    probe_every: int = option(0, "steps between probes for diagnose; 0: none", at_least=0)
    probe_batches: int = option(4, "batches of a probe", at_least=2)

    def check(self, space: SearchSpace, settings: Mapping[str, str], budget: Budget) -> None:
        """Refuse unknown names, a space without alphas, a budget without a step of the alphas."""
        oneshot.make_relaxation(self.relaxation, self.update)
        mixed = space.mixed(settings)
        if not mixed:
            raise UserError(f"space {space.name!r} leaves no choice to alpha: nothing to search")
        least = self.level_class.passes + self._selection().cost(len(mixed))
        if budget.search < least:
            few = f"{budget.search} search steps are too few, at least {least} needed"
            raise UserError(f"{few}; raise steps or search_fraction")

    def check_objective(self, objective: Objective) -> None:
        """Refuse what the level cannot search on."""
        self.level_class.check(objective)

    def check_recipe(self, recipe: Recipe) -> None:
        """Refuse an optimiser that the level cannot search with."""
        self.level_class.check_recipe(recipe)

    def search(self, run: Run, recipe: Recipe) -> Found:
        """Train the supernet, select an architecture, cut it out."""
        net, weights = self.train_supernet(run, recipe)
        mixture = oneshot.evaluate_mixture(run, net)
        architecture = self._selection().choose(run, net, weights)
        run.replace(net.cut(architecture))
        return Found(architecture, mixture, weights)

    def train_supernet(self, run: Run, recipe: Recipe) -> tuple[Supernet, WeightOptimizer]:
        """Move weights and alphas, prune on the way; return the net and what moved its weights."""
        heat = self.temperature_start, self.temperature_end
        relaxation = oneshot.make_relaxation(self.relaxation, self.update, *heat)
        net = Supernet(run.space, run.objective.width, relaxation, run.settings)
        oneshot.refuse_norm_behind(net)
        run.once("warned of dropout", lambda: oneshot.warn_of_dropout(run))
        run.reset(net)
        weights = WeightOptimizer(run, recipe, run.budget.total)
        alphas, evidence = self._alphas(net), oneshot.Evidence(net, run.seed)
        level = self.level_class(run, net, weights, alphas)
        grown = oneshot.SCHEDULES[self.entropy_schedule]
        probe = oneshot.Probe(run, net, level.split, self.probe_every, self.probe_batches)
        when = self.settled_records, self.settled_within, self.collapse_above
        stop, best = oneshot.EarlyStop(net, *when), Best(run, keep=False)
        tuning = self._selection().cost(len(net.decisions))
        plan = oneshot.Timetable.of(run.budget.search - tuning, level.passes, self.alpha_warmup)
        moved: dict[str, Stateful] = dict(weights=weights, alphas=alphas)
        parts = moved | dict(evidence=evidence, stop=stop, best=best)
        loop = run.steps("search", plan.steps, parts, plan.cost)
        for step in loop:
            net.progress = run.spent / plan.budget
            gradient, moves = None, step >= plan.warmup
            if moves:
                with probe.around(step):
                    losses, gradient = level.step(step, self.entropy_weight * grown(net.progress))
                evidence.take(alphas.gradients)
            else:
                losses = level.move_weights(step)
            norms = net.entropy().item(), weights.norm, gradient
            run.emit(events.Step.of("search", step, plan.steps, losses, weights.rate, *norms))
            if records := step % self.log_every == 0 or step == plan.steps - 1:
                run.emit(oneshot.alphas_of(net, "search", step, gradient))
            if moves and (dropped := net.prune(self.prune_below, plan.left(step, self.prune_to))):
                run.emit(events.Prune(step, dropped))
            settled = stop.look(net) if moves and records else ""
            if reason := best.epoch(recipe, "search", step) or settled:
                run.emit(events.Stop(step, reason))
                loop.stop()
        # A run that goes on behind the loop does not enter it, and tunes at its last temperature.
        net.progress = run.once("progress of the search", lambda: net.progress)
        evidence.tell(run)
        run.once("probed at the end", probe.finish)
        return net, weights

    def _alphas(self, net: Supernet) -> oneshot.AlphaOptimizer:
        update = self.update_class()
        optimizer = update.optimizer(net, self.alpha_learning_rate or update.learning_rate)
        return oneshot.AlphaOptimizer(net, optimizer, self.entropy_class(net))

    def _selection(self) -> oneshot.Selection:
        selection = oneshot.SELECTIONS.get(self.selection, "key 'selection'")
        return selection(self.tune_steps, self.random_order)
