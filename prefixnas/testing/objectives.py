"""The contract of objectives."""

from __future__ import annotations

import copy
import math
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prefixnas.network.supernet import Child, Supernet, build_child, weights_of
from prefixnas.oneshot.rewind import gradient_of
from prefixnas.run.checkpoint import load_checkpoint, save_checkpoint
from prefixnas.run.evaluation import Split
from prefixnas.run.objective import Objective
from prefixnas.space.nodes import Choice, Seq
from prefixnas.space.space import SearchSpace
from prefixnas.testing.promise import BrokenPromise, a_test_for_each, expect, promises_of

_SPACE = SearchSpace("contract", Seq("linear", Choice("activation", ["tanh", "gelu"])))


class ObjectiveCheck:
    """The promises of an objective, one method each.

    Args:
        make: Makes an objective; called more than once.
        steps: Training steps in which every weight must receive a gradient.
        space: What is searched; a small space if not given.
    """

    def __init__(
        self, make: Callable[[], Objective], steps: int = 3, space: SearchSpace = _SPACE
    ) -> None:
        self.make, self.steps, self.space = make, steps, space

    def reset(self) -> None:
        """The same seed gives the same losses and scores, another seed other ones."""
        objective = self.make()
        first, again, other = (self._losses(objective, seed) for seed in (0, 0, 1))
        expect(first == again, "reset", f"the same seed gives {again} after {first}")
        expect(first != other, "reset", "another seed gives the same losses")

    def losses(self) -> None:
        """There is a finite loss and a finite score for each task."""
        objective, _ = self._ready()
        losses = objective.backward("train")
        fine = bool(losses) and all(math.isfinite(loss) for loss in losses.values())
        expect(fine, "losses", f"the losses are {losses}")
        evaluation = objective.evaluate("selection")
        expect(
            set(evaluation.task_scores) == set(losses) == set(evaluation.scores),
            "losses",
            f"losses of {sorted(losses)}, scores of {sorted(evaluation.task_scores)}",
        )
        expect(math.isfinite(evaluation.score), "losses", f"the score is {evaluation.score}")

    def width(self) -> None:
        """The module is used, and its input is as wide as `width` says."""
        objective = self.make()
        module, seen = self._child(objective.width), []
        module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[-1]))
        objective.reset(module, 0)
        objective.backward("train")
        text = f"width is {objective.width}, the module's inputs were {sorted(set(seen))} wide"
        expect(set(seen) == {objective.width}, "width", text)

    def evaluate(self) -> None:
        """Evaluation repeats itself and changes nothing: no weight, no random state, no batch."""
        objective, module = self._ready()
        objective.backward("train")
        before, state = _snapshot(objective, module), torch.get_rng_state()
        first = objective.evaluate("selection").to_json()
        same = torch.equal(state, torch.get_rng_state())
        expect(same, "evaluate", "the random state is not what it was")
        expect(
            _equal(before, _snapshot(objective, module)), "evaluate", "it changes weights or state"
        )
        second = objective.evaluate("selection").to_json()
        expect(first == second, "evaluate", f"a second look gives {second} instead of {first}")
        torch.manual_seed(5)
        with_evaluation = objective.backward("train")
        other, _ = self._ready()
        other.backward("train")
        torch.manual_seed(5)
        without = other.backward("train")
        expect(with_evaluation == without, "evaluate", "the next training batch is another one")

    def gradients(self) -> None:
        """Every weight is in one group, once, and receives a gradient; alphas are in none."""
        objective = self.make()
        torch.manual_seed(0)
        net = Supernet(self.space, objective.width)
        objective.reset(net, 0)
        weights = _weights(objective)
        expect(
            len({id(weight) for weight in weights}) == len(weights),
            "gradients",
            "a weight is in the groups twice",
        )
        listed = {id(weight) for weight in weights}
        missing = [weight for weight in weights_of(net) if id(weight) not in listed]
        expect(not missing, "gradients", "weights of the module are in no group")
        alphas = [alpha for alpha in net.alphas if id(alpha) in listed]
        expect(not alphas, "gradients", "the alphas are among the weights")
        optimizer = torch.optim.AdamW(objective.parameters())
        reached = [False] * len(weights)
        for step in range(self.steps):
            optimizer.zero_grad(set_to_none=True)
            objective.backward("train")
            reached = [
                was or (weight.grad is not None and bool(weight.grad.any()))
                for was, weight in zip(reached, weights, strict=True)
            ]
            optimizer.step()
            objective.stepped(step)
        lost = [tuple(w.shape) for w, was in zip(weights, reached, strict=True) if not was]
        expect(not lost, "gradients", f"weights of the shapes {lost} never receive a gradient")
        received = net.alphas[0].grad
        if received is None or not bool(received.any()):
            raise BrokenPromise("gradients", "the alphas receive no gradient")

    def backward(self) -> None:
        """Gradients are added to what is there, and no weight moves."""
        objective, _ = self._ready()
        before = [weight.detach().clone() for weight in _weights(objective)]
        apart = []
        for _ in range(2):
            _clear(objective)
            objective.backward("train")
            apart.append([gradient_of(weight) for weight in _weights(objective)])
        objective, _ = self._ready()
        _clear(objective)
        objective.backward("train")
        objective.backward("train")
        for index, weight in enumerate(_weights(objective)):
            text = "a second call does not add to the gradients of the first"
            together = apart[0][index] + apart[1][index]
            same = torch.allclose(gradient_of(weight), together, rtol=1e-3, atol=1e-6)
            expect(same, "backward", text)
            expect(torch.equal(weight, before[index]), "backward", "a weight moves")

    def splits(self) -> None:
        """Selection batches are not training batches and leave the order of these alone."""
        objective, _ = self._ready()
        train = [self._seeded(objective, "train") for _ in range(2)]
        objective, _ = self._ready()
        mixed = [self._seeded(objective, split) for split in ("train", "selection", "train")]
        expect(mixed[1] not in train, "splits", "a selection batch has a training batch's losses")
        same = [mixed[0], mixed[2]] == train
        expect(same, "splits", "a selection batch changes which training batch is next")

    def state(self) -> None:
        """What `state_dict` returns survives a checkpoint and brings the objective back."""
        objective, module = self._ready()
        optimizer = torch.optim.AdamW(objective.parameters())
        for _ in range(2):
            optimizer.zero_grad()
            objective.backward("train")
            optimizer.step()
        module = copy.deepcopy(module)
        with tempfile.TemporaryDirectory() as folder:
            save_checkpoint(Path(folder), {"objective": objective.state_dict()})
            loaded = load_checkpoint(Path(folder))
        assert loaded is not None
        score = objective.evaluate("selection").to_json()
        expected = [self._seeded(objective, split) for split in ("train", "selection", "train")]
        other = self.make()
        other.reset(module, 1)
        other.load_state_dict(loaded["objective"])
        restored = other.evaluate("selection").to_json()
        expect(restored == score, "state", f"scores {restored} instead of {score}")
        losses = [self._seeded(other, split) for split in ("train", "selection", "train")]
        expect(losses == expected, "state", f"losses {losses} instead of {expected}")

    def replace(self) -> None:
        """A module that is swapped in is used, and all other weights stay."""
        objective, first = self._ready()
        before = copy.deepcopy(objective.state_dict())
        old = {id(weight) for weight in weights_of(first)}
        torch.manual_seed(9)
        module = self._child(objective.width)
        objective.replace(module)
        kept = _equal(before, objective.state_dict())
        expect(kept, "replace", "weights outside of the module change")
        listed = {id(weight) for weight in _weights(objective)}
        used = {id(weight) for weight in weights_of(module)} <= listed and not old & listed
        expect(used, "replace", "the groups hold the old module's weights, or lack the new one's")
        _clear(objective)
        objective.backward("train")
        reached = any(weight.grad is not None for weight in weights_of(module))
        expect(reached, "replace", "the new module receives no gradient")

    def without(self) -> None:
        """An objective that calls the module optional trains and scores without it."""
        objective = self.make()
        if objective.optional:
            objective.reset(None, 0)
            objective.backward("train")
            score = objective.evaluate("selection").score
            expect(math.isfinite(score), "without", f"the score without a module is {score}")

    def alone(self) -> None:
        """One that is resized is an objective of its own, nearer to the weights asked for."""
        objective, _ = self._ready()
        if not objective.optional:
            return
        wanted, tasks = 2 * _count(objective), set(objective.backward("train"))
        resized = objective.alone(wanted)
        if resized is None:
            return
        for each in (objective, resized):
            each.reset(None, 0)
        far, near = (abs(_count(each) - wanted) for each in (objective, resized))
        expect(near < far, "alone", f"it is {near} weights away from {wanted}, the original {far}")
        labels = {each.without_label for each in (objective, resized)}
        expect(len(labels) == 2, "alone", f"both are called {labels}")
        expect(set(resized.backward("train")) == tasks, "alone", "it has other tasks")
        shared = {id(w) for w in _weights(objective)} & {id(w) for w in _weights(resized)}
        expect(not shared, "alone", "it trains weights of the original")

    def save(self) -> None:
        """Artefacts are written, none of them a pickle."""
        objective, _ = self._ready()
        with tempfile.TemporaryDirectory() as folder:
            objective.save(Path(folder))
            files = [path.name for path in Path(folder).rglob("*") if path.is_file()]
        expect(bool(files), "save", "nothing is written")
        pickles = [n for n in files if n.endswith((".pt", ".pth", ".bin", ".pkl", ".pickle"))]
        expect(not pickles, "save", f"{pickles}: write tensors as safetensors")

    def _ready(self, seed: int = 0) -> tuple[Objective, Child]:
        objective = self.make()
        torch.manual_seed(seed)
        module = self._child(objective.width)
        objective.reset(module, seed)
        torch.manual_seed(seed)
        return objective, module

    def _losses(self, objective: Objective, seed: int) -> list[Any]:
        torch.manual_seed(0)
        objective.reset(self._child(objective.width), seed)
        torch.manual_seed(0)
        seen: list[Any] = [objective.evaluate("selection").to_json()]
        return [*seen, *(objective.backward("train") for _ in range(3))]

    def _seeded(self, objective: Objective, split: Split) -> dict[str, float]:
        torch.manual_seed(4)
        return objective.backward(split)

    def _child(self, width: int) -> Child:
        return build_child(self.space, self.space.first(), width)


def _weights(objective: Objective) -> list[nn.Parameter]:
    return [weight for group in objective.parameters() for weight in group["params"]]


def _count(objective: Objective) -> int:
    return sum(weight.numel() for weight in _weights(objective))


def _clear(objective: Objective) -> None:
    for weight in _weights(objective):
        weight.grad = None


def _snapshot(objective: Objective, module: nn.Module) -> dict[str, Any]:
    gradients = [gradient_of(weight) for weight in _weights(objective)]
    return copy.deepcopy(
        {"own": objective.state_dict(), "module": module.state_dict(), "gradients": gradients}
    )


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        pairs = zip(one, other, strict=True)
        return len(one) == len(other) and all(_equal(a, b) for a, b in pairs)
    return bool(one == other)


PROMISES = promises_of(ObjectiveCheck)


def check_objective(
    make: Callable[[], Objective], *, steps: int = 3, space: SearchSpace = _SPACE
) -> None:
    """Check every promise of an objective; see `ObjectiveCheck` for the arguments.

    Raises:
        BrokenPromise: Names the first promise that does not hold.
    """
    check = ObjectiveCheck(make, steps, space)
    for promise in PROMISES:
        getattr(check, promise)()


@a_test_for_each(ObjectiveCheck)
class ObjectiveContract(ABC):
    """The promises of an objective as pytest tests; subclass it and say which objective."""

    @abstractmethod
    def objective(self) -> Objective:
        """Return a new objective."""

    def check(self) -> ObjectiveCheck:
        """Return the checks."""
        return ObjectiveCheck(self.objective)

    def keep(self, promise: str) -> None:
        """Check one promise."""
        getattr(self.check(), promise)()
