"""The key `order`: what trains in which phase, and what is held, to the last bit."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from peml.methods.method import METHODS
from peml.objective.config import LanguageModelConfig
from peml.objective.objective import JointObjective
from prefixnas import Budget, Recipe, Run, load_space, search
from prefixnas.base.errors import UserError
from prefixnas.run.evaluation import BASELINE
from prefixnas.run.events import Event, Step
from prefixnas.run.strategy import Strategy
from prefixnas.space.space import SearchSpace
from prefixnas.strategies.darts import Darts
from prefixnas.strategies.fixed import Fixed
from prefixnas.strategies.random import RandomSearch
from prefixnas.strategies.two_stage import TwoStage
from tests.peml.objective.built import GATED, SPACE

BUDGET = Budget(6, 4, 9)
PHASES = {"lora-first": ["apart", "search", "train"], "prefix-first": ["search", "train", "apart"]}


@dataclass
class Seen:
    """The weights after a step."""

    step: Step
    method: dict[str, Any]
    heads: dict[str, Tensor]
    prefix: Tensor | None


def made(bench: Path, family: str, order: str, method: str = "lora", **options: Any) -> Any:
    ranked = {"lora_rank": 2} if hasattr(METHODS.get(method), "lora_rank") else {}
    return LanguageModelConfig.of(method)(
        model=str(bench / family),
        tasks=[str(bench / "mood"), str(bench / "order")],
        prefix_length=3,
        batch_size=4,
        order=order,
        **{**ranked, **options},
    )


def watched(
    folder: Path,
    objective: JointObjective,
    strategy: Strategy,
    space: SearchSpace = SPACE,
    **options: Any,
) -> list[Seen]:
    """Run a search; return what the weights were after each step."""
    seen: list[Seen] = []

    def look(event: Event) -> None:
        if isinstance(event, Step) and not event.phase.startswith(BASELINE):
            heads = {} if objective.heads is None else objective.heads.state_dict()
            blocks = objective.prefix.evaluated().blocks
            state = objective.method.state_dict()
            seen.append(Seen(event, copy.deepcopy(state), copy.deepcopy(heads), blocks))

    run = Run(folder, space, objective, BUDGET, on_event=look)
    search(run, strategy, Recipe(warmup=0), **{"baseline": "none", **options})
    return seen


def equal(first: Any, second: Any) -> bool:
    """Whether two nested states are the same, bit for bit."""
    if isinstance(first, Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[k], second[k]) for k in first)
    return bool(first == second)


def moves(states: list[Any]) -> list[bool]:
    return [not equal(*pair) for pair in pairwise(states)]


@pytest.mark.parametrize("order", PHASES)
@pytest.mark.parametrize(
    ("family", "method", "space"),
    [
        ("llama", "lora", GATED),
        ("bert", "mtl-lora", SPACE),
        ("t5", "adalora", SPACE),
        ("llama", "loramoe", SPACE),
        ("llama", "full", SPACE),
    ],
)
def test_one_part_trains_and_the_other_is_held(
    order: str, family: str, method: str, space: SearchSpace, bench: Path, tmp_path: Path
) -> None:
    options = {"balance": 0.1} if method == "loramoe" else {}
    objective = JointObjective(made(bench, family, order, method, **options), BUDGET.whole, 0)
    objective.reset(None, 0)
    start = copy.deepcopy(objective.method.state_dict())
    seen = watched(tmp_path, objective, Darts(alpha_warmup=0.0), space)
    by = {phase: [s for s in seen if s.step.phase == phase] for phase in PHASES[order]}
    lengths = {phase: len(steps) for phase, steps in by.items()}
    assert lengths == {"apart": BUDGET.apart, "search": BUDGET.search, "train": BUDGET.train}
    assert [s.step.phase for s in seen] == [p for p in PHASES[order] for _ in range(lengths[p])]
    held = by["apart"][-1].method if order == "lora-first" else start
    assert all(equal(s.method, held) for s in by["search"] + by["train"])
    assert all(moves([s.method for s in by["apart"]]))
    still = None if order == "lora-first" else by["train"][-1].prefix  # None: not there yet
    assert all(equal(s.prefix, still) for s in by["apart"])
    assert all(moves([s.prefix for s in by["search"]]))
    assert all(moves([s.prefix for s in by["train"]]))
    if family == "bert":
        assert all(moves([s.heads for s in seen]))


def test_every_trial_starts_from_what_the_method_left(bench: Path, tmp_path: Path) -> None:
    """Heads and the place in the data as well: a trial is judged by its architecture alone."""
    objective = JointObjective(made(bench, "bert", "lora-first"), BUDGET.whole, 0)
    began: list[tuple[Any, Any]] = []
    plain = objective.reset

    def reset(module: Any, seed: int) -> None:
        plain(module, seed)
        began.append(copy.deepcopy((objective.method.state_dict(), objective._place())))

    objective.reset = reset  # type: ignore[method-assign]
    seen = watched(tmp_path, objective, RandomSearch(trials=2))
    left = [s for s in seen if s.step.phase == "apart"][-1]
    fresh, *trials = began
    assert len(trials) == 3  # two, and the best of them again
    assert not equal(fresh[0], left.method)
    for method, place in trials:
        assert equal(method, left.method) and equal(place["heads"], left.heads)
        assert place["samplers"]["train"]["step"] == BUDGET.apart
    assert [s.step.phase for s in seen].count("trial 1") == 3


@pytest.mark.parametrize(("order", "steps"), [("lora-first", 9), ("parallel", 19)])
def test_a_schedule_of_the_method_spans_its_own_steps(
    order: str, steps: int, bench: Path, tmp_path: Path
) -> None:
    objective = JointObjective(made(bench, "llama", order, "adalora"), BUDGET.whole, 0)
    told: list[int] = []
    plain = objective.method.stepped
    objective.method.stepped = lambda step: (told.append(step), plain(step))[1]  # type: ignore[method-assign, func-returns-value]
    config = objective.method.config  # type: ignore[attr-defined]
    assert config.total_step == steps
    if order == "lora-first":
        watched(tmp_path, objective, Fixed())
        assert told == [*range(steps)]


def test_the_baselines_train_everything_at_once(bench: Path, tmp_path: Path) -> None:
    config = made(bench, "llama", "lora-first", "adalora")
    objective = JointObjective(config, BUDGET.whole, 0)
    run = Run(tmp_path / "run", SPACE, objective, BUDGET)
    result = search(run, Fixed(), Recipe(), baseline="alone")
    alone = JointObjective(made(bench, "llama", "parallel", "adalora"), BUDGET.whole, 0)
    plain = Run(tmp_path / "alone", load_space("none"), alone, Budget(0, BUDGET.whole))
    expected = search(plain, Fixed(), Recipe(), baseline="none")
    assert result.columns["AdaLoRA alone"] == expected.columns["trained child"]


def test_everything_counts_once_trained(bench: Path, tmp_path: Path) -> None:
    """The order changes what trains when, not how much is trained in all."""
    counts = []
    for order in ("parallel", *PHASES):
        objective = JointObjective(made(bench, "bert", order), BUDGET.whole, 0)
        budget = Budget(6, 13) if order == "parallel" else BUDGET
        run = Run(tmp_path / order, SPACE, objective, budget)
        search(run, Fixed(), Recipe(), baseline="none")
        counts.append(sum(w.numel() for g in objective.parameters() for w in g["params"]))
        assert all(w.requires_grad for w in objective.method.parameters())
    assert len(set(counts)) == 1


@pytest.mark.parametrize("order", PHASES)
def test_half_of_the_steps_are_the_methods(order: str, bench: Path) -> None:
    assert made(bench, "llama", order).steps_apart(19) == 9
    assert made(bench, "llama", "parallel").steps_apart(19) == 0


def test_where_there_is_nothing_to_order(bench: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'lora-first' has nothing to order: space 'none'"):
        objective = JointObjective(made(bench, "llama", "lora-first"), 4, 0)
        objective.check_space(load_space("none"))
    with pytest.raises(UserError, match="'prefix-first' has nothing to order: method 'frozen'"):
        JointObjective(made(bench, "bert", "prefix-first", "frozen"), 4, 0)
    with pytest.raises(UserError, match=r"key 'proxy': with order 'lora-first'"):
        objective.check_proxy({"train": "2"})
    with pytest.raises(UserError, match="0 steps for own weights apart"):
        search(Run(tmp_path, SPACE, objective, Budget(4, 4)), Darts())


def test_a_proxy_searches_beside_the_method_at_its_start(bench: Path, tmp_path: Path) -> None:
    objective = JointObjective(made(bench, "llama", "prefix-first"), BUDGET.whole, 0)
    strategy = TwoStage(proxy=["train=8"], proxy_cost=1.0, shortlist=1, proxy_share=0.5)
    seen = watched(tmp_path, objective, strategy)
    assert [s.step.phase for s in seen].count("apart") == BUDGET.apart
