"""A differentiable strategy of your own: anneal and prune (ASAP, Noy et al., AISTATS 2020)."""

from dataclasses import dataclass

from prefixnas import (
    Found,
    Recipe,
    Run,
    Strategy,
    Supernet,
    WeightOptimizer,
    oneshot,
    option,
    register_strategy,
)
from prefixnas.run import events


@register_strategy("shrinking")
@dataclass(frozen=True)
class Shrinking(Strategy):
    """Train weights and alphas by one loss; drop the least likely candidates on the way."""

    relaxation: str = option("gumbel", "softmax, gumbel, gumbel-hard or ste")
    heat: float = option(2.0, "temperature at first; it ends at a tenth", above=0)
    alpha_rate: float = option(0.05, "learning rate of the alphas", above=0)

    def search(self, run: Run, recipe: Recipe) -> Found:
        """Train the mixture of all candidates until one is left of each choice."""
        relaxation = oneshot.make_relaxation(self.relaxation, "logits", self.heat, self.heat / 10)
        net = Supernet(run.space, run.objective.width, relaxation, run.settings)
        run.reset(net)
        weights = WeightOptimizer(run, recipe, run.budget.total)
        adam = oneshot.UPDATES.get("logits")().optimizer(net, self.alpha_rate)
        alphas = oneshot.AlphaOptimizer(net, adam)
        level = oneshot.LEVELS.get("joint")(run, net, weights, alphas)
        plan = oneshot.Timetable.of(run.budget.search, level.passes, warmup=0.1)
        for step in run.steps("search", plan.steps, {"weights": weights, "alphas": alphas}):
            net.progress = run.spent / plan.budget
            if step < plan.warmup:
                level.move_weights(step)
                continue
            losses, norm = level.step(step, entropy_weight=0.0)
            run.emit(events.Step.of("search", step, plan.steps, losses, weights.rate))
            run.emit(oneshot.alphas_of(net, "search", step, norm))
            if dropped := net.prune(0.0, plan.left(step, end=0.0)):
                run.emit(events.Prune(step, dropped))
        mixture = oneshot.evaluate_mixture(run, net)
        architecture = net.architecture()
        run.replace(net.cut(architecture))
        return Found(architecture, mixture, weights)
