"""What a run says of itself while it goes on: a dataclass an event, a line of `metrics.jsonl` each.

`Run.emit` writes them, `prefixnas.run.event_file` reads them; displays and reports take them as
they are. In the file an event is a JSON object: `event`, which is the class's name in lower case,
`time`, and the fields; one that is None is left out.

A strategy's own event is a subclass. Where its class is not imported, it is read as `Other`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

Numbers = Mapping[str, float]


@dataclass(frozen=True)
class Event:
    """Base of all events.

    Attributes:
        time: Seconds since its process began the run.
    """

    time: float = field(default=0.0, kw_only=True)

    kinds: ClassVar[dict[str, type[Event]]] = {}
    """Every class by the name that its events have in the file."""

    def __init_subclass__(cls) -> None:
        Event.kinds[cls.__name__.lower()] = cls

    def to_json(self) -> dict[str, Any]:
        """Return what the file holds."""
        values = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        there = {name: value for name, value in values.items() if value is not None}
        return {"event": type(self).__name__.lower(), "time": there.pop("time"), **there}


@dataclass(frozen=True)
class Start(Event):
    """The run begins.

    Attributes:
        space: The space's name.
        strategy: The strategy's.
        objective: The objective's.
        seed: Of everything random.
        steps: Those of its parts "search", "train" and, if there are any, "apart".
        baselines: Steps of the baselines that may follow, by phase.
        began: Date and time, by ISO 8601, with the offset of the machine's time zone.
        about: What the objective says of itself, by label.
    """

    space: str
    strategy: str
    objective: str
    seed: int
    steps: Mapping[str, int]
    baselines: Mapping[str, int] = field(default_factory=dict)
    began: str | None = None
    about: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Step(Event):
    """A training step.

    Attributes:
        phase: The loop.
        step: Its step, from 0.
        total: Its steps.
        losses: By task.
        loss: Their mean.
        lr: Learning rate of the first group of weights.
        entropy: Of all alphas, in nats, where a supernet is trained.
        weight_gradient_norm: Of all weights, before it was clipped, in a search.
        alpha_gradient_norm: Of all alphas, the entropy's part with it, where they moved.
    """

    phase: str
    step: int
    total: int
    losses: Numbers
    loss: float
    lr: float
    entropy: float | None = None
    weight_gradient_norm: float | None = None
    alpha_gradient_norm: float | None = None

    @classmethod
    def of(
        cls, phase: str, step: int, total: int, losses: Numbers, lr: float, *more: float | None
    ) -> Self:
        """Return the event of a step with these losses; see the attributes."""
        mean = sum(losses.values()) / len(losses)
        return cls(phase, step, total, dict(losses), mean, lr, *more)


@dataclass(frozen=True)
class Alpha(Event):
    """The alphas as they stand.

    Attributes:
        phase: The loop.
        step: Its step.
        probabilities: By decision and option; 0: pruned.
        alphas: By decision and option.
        entropies: By decision, in nats.
        gradient_norm: Of all alphas, the entropy's part with it; None where they did not move.
        variance: Of all alphas.
    """

    phase: str
    step: int
    probabilities: Mapping[str, Numbers]
    alphas: Mapping[str, Numbers] = field(default_factory=dict)
    entropies: Numbers = field(default_factory=dict)
    gradient_norm: float | None = None
    variance: float | None = None


@dataclass(frozen=True)
class Probe(Event):
    """Measurements around a step on batches of its own; see `prefixnas.oneshot.probe`.

    With theta, alpha before and theta', alpha' after the step:

    Attributes:
        step: The step.
        passes: Batches passed.
        weight_move: Length of theta' - theta.
        alpha_move: Length of alpha' - alpha.
        alpha_gradient_norm: By batch, of the alphas' gradient at (theta, alpha).
        alpha_gradient_change: By batch, how far it is from there at (theta', alpha).
        alpha_gradient_change_of_mean: The same for the mean over the batches.
        gradient_change: By batch, for the gradient of both, at (theta', alpha').
        squared_norm: Of the gradient of both at (theta, alpha), mean over the batches.
        squared_norm_of_mean: The same without the batches' noise.
    """

    step: int
    passes: int
    weight_move: float
    alpha_move: float
    alpha_gradient_norm: Sequence[float]
    alpha_gradient_change: Sequence[float]
    alpha_gradient_change_of_mean: float
    gradient_change: Sequence[float]
    squared_norm: float
    squared_norm_of_mean: float | None = None


@dataclass(frozen=True)
class Gap(Event):
    """The way from the mixture to the argmax child, straight in the mixture's weights.

    Attributes:
        passes: Batches passed.
        positions: Places on the way: 0 is the mixture, 1 the child.
        losses: By batch and position.
        gradient_norms: By batch and position, along the simplex.
        smoothness: By batch, the largest change of the gradient for a step on the way.
        epsilon: By decision, 1 less the largest probability.
        distance: Length of the way.
    """

    passes: int
    positions: Sequence[float]
    losses: Sequence[Sequence[float]]
    gradient_norms: Sequence[Sequence[float]]
    smoothness: Sequence[float]
    epsilon: Numbers
    distance: float


@dataclass(frozen=True)
class Evidence(Event):
    """What the alphas of a search rest on; see `prefixnas.oneshot.evidence`.

    Attributes:
        steps: Steps in which the alphas moved.
        p: Probability of so strong a pull on any decision if all gradients had random signs.
        decisions: By decision, the same for its own pull; the least of them is `p`.
    """

    steps: int
    p: float
    decisions: Numbers

    def doubt(self) -> str:
        """Return a sentence if the alphas tell no more than chance, else an empty text."""
        if self.p <= CHANCE:
            return ""
        return (
            f"the alphas carry no more information than chance: over {self.steps} steps the loss "
            f"pulled no decision (of {len(self.decisions)}) in one direction more than random "
            f"signs would (p = {self.p:.2f}); what is read off them is as good as a random choice"
        )


CHANCE = 0.05
"""The largest p with which alphas count as informed."""


@dataclass(frozen=True)
class Discretisation(Event):
    """Validation scores before and after the choice; `gap` is mixture less argmax child."""

    mixture: float
    argmax_child: float
    trained_child: float
    gap: float


@dataclass(frozen=True)
class Prune(Event):
    """Candidates are dropped after a step: pairs of decision and option."""

    step: int
    dropped: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Perturbation(Event):
    """A decision is taken by the selection score without each of its options (DARTS-PT)."""

    decision: str
    score_without: Numbers


@dataclass(frozen=True)
class Stop(Event):
    """A search ends after a step, before its budget does."""

    step: int
    reason: str


@dataclass(frozen=True)
class Trial(Event):
    """An architecture is tried; `name` is that of its phase and of its evaluation."""

    name: str
    choices: Mapping[str, str]


@dataclass(frozen=True)
class Proxy(Event):
    """What a step on the proxy counted for, in steps, and the seconds of a step of each."""

    price: float
    seconds: Mapping[str, float | None]


@dataclass(frozen=True)
class Epoch(Event):
    """An epoch ends, counted from 1 over all phases: scores on the split "selection"."""

    epoch: int
    phase: str
    score: float
    task_scores: Numbers


@dataclass(frozen=True)
class Evaluation(Event):
    """A model is scored; its name is a column of the table, or as the strategy calls it.

    The standard errors, over the examples, are those of `task_scores` and of `score`, if known.
    """

    name: str
    split: str
    scores: Mapping[str, Numbers]
    task_scores: Numbers
    score: float | None
    standard_errors: Numbers | None = None
    standard_error: float | None = None


@dataclass(frozen=True)
class Architecture(Event):
    """The architecture is chosen: option by decision."""

    choices: Mapping[str, str]


@dataclass(frozen=True)
class Warning(Event):
    """Something that the user should know, in a sentence."""

    message: str


@dataclass(frozen=True)
class End(Event):
    """The run is over, so many seconds after its process began."""

    seconds: float


@dataclass(frozen=True)
class Other(Event):
    """An event whose class is not known here.

    Attributes:
        event: Its name in the file.
        values: Its other keys.
    """

    event: str
    values: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return what the file holds."""
        return {"event": self.event, "time": self.time, **self.values}
