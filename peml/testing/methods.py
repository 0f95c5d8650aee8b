"""The promises of a method, tried on tiny models of several families."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from peml.methods.method import Attached, Method, Setting, attach_method
from peml.model.model import LanguageModel
from peml.testing.models import FAMILIES, output, padded, some_inputs, tiny_model
from prefixnas.base.errors import UserError
from prefixnas.network.modes import evaluation_mode
from prefixnas.testing.promise import a_test_for_each, expect, promises_of

TASKS = ("first", "second")
STEPS = 5
TOLERANCE = 1e-6
"""Llama computes its norms in float32, whatever its weights are."""


class MethodCheck:
    """The promises of a method on one model, one method each.

    Args:
        make: Makes the method, or its own copy of it.
        family: Which tiny model, or a function that makes a language model.
        rate: Learning rate of the training steps that some promises take.
    """

    def __init__(
        self,
        make: Callable[[], Method],
        family: str | Callable[[], LanguageModel] = "llama",
        rate: float = 0.05,
    ) -> None:
        self.make, self.rate = make, rate
        self._model = family if callable(family) else lambda: tiny_model(family)

    def start(self) -> None:
        """A fresh method computes what the base does, where it says so."""
        lm = self._model()
        base = output(lm, some_inputs(lm))
        attached = self._attach(lm)
        if not attached.method.starts_at_base:
            return
        for task in TASKS:
            self._equal(self._output(lm, task), base, "start", "a fresh method is not the base")

    def reset(self) -> None:
        """One seed gives one start, another seed another one; the parameters stay the objects."""
        lm = self._model()
        attached = self._attach(lm)
        objects = [id(parameter) for parameter in attached.parameters()]
        starts = []
        for seed in (5, 6, 5):
            self._train(lm, attached, 2)
            attached.reset(seed)
            starts.append([p.detach().clone() for p in attached.parameters()])
        expect(_same(starts[0], starts[2]), "reset", "the same seed gave another start")
        drawn = bool(starts[0]) and any(float(p.std()) > 0 for p in starts[0] if p.numel() > 1)
        other = not drawn or not _same(starts[0], starts[1]) or self._not_drawn(attached)
        expect(other, "reset", "another seed gave the same start")
        same = objects == [id(parameter) for parameter in attached.parameters()]
        expect(same, "reset", "the parameters are other objects")
        expect(all(p.grad is None for p in attached.parameters()), "reset", "a gradient was left")

    def gradients(self) -> None:
        """Every weight has a gradient within four steps, and a task's own from that task alone."""
        lm = self._model()
        attached = self._attach(lm)
        parameters, reached = attached.parameters(), set()
        for step in range(4):
            self._train(lm, attached, 1, begin=step, keep=True)
            reached |= {i for i, p in enumerate(parameters) if _reached(p)}
        left = [i for i in range(len(parameters)) if i not in reached]
        expect(not left, "gradients", f"{len(left)} of {len(parameters)} weights had none")

    def ownership(self) -> None:
        """Its own weights train and no others; those of the base model keep their bytes."""
        lm = self._model()
        before = {name: p.detach().clone() for name, p in lm.model.named_parameters()}
        kept = dict(lm.model.named_parameters())
        attached = self._attach(lm)
        own = {id(parameter) for parameter in attached.parameters()}
        for name, parameter in lm.model.named_parameters():
            trains = parameter.requires_grad and id(parameter) not in own
            expect(not trains, "ownership", f"{name} trains and is none of the method's")
        self._train(lm, attached, 3)
        for name, parameter in kept.items():
            same = torch.equal(parameter, before[name])
            expect(same, "ownership", f"the base's {name} was changed")

    def counted(self) -> None:
        """The size that is told without attaching is the number of weights that train."""
        lm = self._model()
        told = self.make().size(lm, len(TASKS))
        attached = self._attach(lm)
        trained = sum(parameter.numel() for parameter in attached.parameters())
        expect(told == trained, "counted", f"{told} were told, {trained} train")
        used = attached.weights_in_use()
        expect(used <= trained, "counted", f"{used} in use of {trained}")

    def routed(self) -> None:
        """After training, tasks compute different things where the method needs a task."""
        lm = self._model()
        attached = self._attach(lm)
        self._train(lm, attached, STEPS)
        one, other, again = (self._output(lm, task) for task in (TASKS[0], TASKS[1], TASKS[0]))
        expect(torch.equal(one, again), "routed", "one task computed two things")
        differ = not torch.equal(one, other)
        needs = attached.method.needs_task
        expect(differ == needs, "routed", f"tasks differ: {differ}; needs a task: {needs}")

    def tasks(self) -> None:
        """A pass without a task, or with an unknown one, is refused where a task is needed."""
        lm = self._model()
        attached = self._attach(lm)
        if not attached.method.needs_task:
            output(lm, some_inputs(lm))
            return
        expect(self._refused(lambda: output(lm, some_inputs(lm))), "tasks", "no task was needed")
        unknown = self._refused(lambda: self._output(lm, "frist"))
        expect(unknown, "tasks", "an unknown task was taken")
        nobody = self._refused(lambda: attach_method(self.make(), self._model(), Setting()))
        expect(nobody, "tasks", "it was attached without tasks")

    def evaluation(self) -> None:
        """Evaluation is deterministic, and takes no random number."""
        lm = self._model()
        self._train(lm, self._attach(lm), 3)
        state = torch.get_rng_state()
        first, second = self._output(lm), self._output(lm)
        expect(torch.equal(first, second), "evaluation", "two evaluations differ")
        same = torch.equal(state, torch.get_rng_state())
        expect(same, "evaluation", "evaluation took a random number")

    def generation(self) -> None:
        """Generation with a cache writes what whole passes do, with padding in front too."""
        lm = self._model()
        self._train(lm, self._attach(lm), 3)
        if lm.family == "encoder":
            return
        given = {k: v for k, v in some_inputs(lm).items() if not k.startswith("decoder")}
        cached, whole = (self._written(lm, given, cache) for cache in (True, False))
        expect(torch.equal(cached, whole), "generation", "the cache changes what is written")
        longer = {k: v for k, v in padded(lm, given).items() if k != "position_ids"}
        start = 0 if lm.family == "encoder-decoder" else longer["input_ids"].shape[1]
        first = 0 if lm.family == "encoder-decoder" else given["input_ids"].shape[1]
        same = torch.equal(self._written(lm, longer, True)[:, start:], cached[:, first:])
        expect(same, "generation", "padding changes what is written")

    def padding(self) -> None:
        """Padding changes nothing at real tokens."""
        lm = self._model()
        self._train(lm, self._attach(lm), 3)
        given = some_inputs(lm)
        plain, longer = self._output(lm, given=given), self._output(lm, given=padded(lm, given))
        real = longer[:, -plain.shape[1] :] if lm.family == "decoder" else longer
        self._equal(real[:, : plain.shape[1]], plain, "padding", "padding changes the output")

    def merging(self) -> None:
        """What merges computes the same afterwards in a model of the same type; else it refuses."""
        lm = self._model()
        kind, names = type(lm.model), [name for name, _ in lm.model.named_parameters()]
        attached = self._attach(lm)
        self._train(lm, attached, 3)
        if attached.method.merges == "no":
            refused = self._refused(lambda: attached.merge(TASKS[1]))
            expect(refused, "merging", "it merged, and says that it does not")
            return
        expected = self._output(lm, TASKS[1])
        if attached.method.merges == "per task":
            expect(self._refused(attached.merge), "merging", "it merged without a task")
        attached.merge(TASKS[1])
        self._equal(output(lm, some_inputs(lm)), expected, "merging", "merged, it is another")
        same = type(lm.model) is kind and [n for n, _ in lm.model.named_parameters()] == names
        expect(same, "merging", "the merged model has other modules than the base")

    def saved(self) -> None:
        """What was saved and read for use computes the same; a base in half precision takes it."""
        lm, other, half = (self._model() for _ in range(3))
        attached = self._attach(lm)
        self._train(lm, attached, 3)
        nn.Module.to(half.model, torch.float16)
        with TemporaryDirectory() as folder:
            attached.save(Path(folder))
            for each in (other, half):
                self._read(each, Path(folder))
        for task in TASKS[:2]:
            same = self._output(other, task)
            self._equal(same, self._output(lm, task), "saved", "what was loaded is another")

    def resumed(self) -> None:
        """Going on from a state equals never having stopped, bit for bit."""
        whole, first, second = (self._model() for _ in range(3))
        straight, begun = self._attach(whole), self._attach(first)
        self._train(whole, straight, 5)
        self._train(first, begun, 3)
        state = copy.deepcopy(begun.state_dict())
        resumed = self._attach(second, seed=9)
        resumed.load_state_dict(state)
        self._train(second, resumed, 2, begin=3)
        same = torch.equal(self._output(second), self._output(whole))
        expect(same, "resumed", "a resumed training went another way")

    def checkpointing(self) -> None:
        """Gradients are the same where activations are computed twice."""
        found = []
        for again in (False, True):
            lm = self._model()
            attached = self._attach(lm)
            self._train(lm, attached, 2)
            if again:
                lm.model.gradient_checkpointing_enable(  # type: ignore[no-untyped-call]
                    {"use_reentrant": False}
                )
            self._train(lm, attached, 2, begin=2, keep=True)
            found.append(
                [None if p.grad is None else p.grad.clone() for p in attached.parameters()]
            )
        for one, other in zip(*found, strict=True):
            close = (one is None) == (other is None)
            if one is not None and other is not None:
                close = torch.allclose(one, other, rtol=TOLERANCE, atol=TOLERANCE)
            expect(close, "checkpointing", "gradients differ")

    def terms(self) -> None:
        """Terms of the loss are finite numbers; a batch's is empty once it was read."""
        lm = self._model()
        attached = self._attach(lm)
        lm.model.train()
        with lm.on(TASKS[0]):
            output(lm, some_inputs(lm))
            terms = [attached.batch_loss(), attached.step_loss()]
            again = attached.batch_loss()
        for term in terms:
            fine = term is None or (term.ndim == 0 and bool(term.isfinite()))
            expect(fine, "terms", f"a term of the loss is {term}")
        expect(again is None, "terms", "a batch's term was there twice")

    def detached(self) -> None:
        """Detached, the model is the base again, bit for bit."""
        lm = self._model()
        names = [name for name, _ in lm.model.named_modules()]
        before = output(lm, some_inputs(lm))
        attached = self._attach(lm)
        self._train(lm, attached, 3)
        attached.detach()
        asked = self._refused(lambda: output(lm, some_inputs(lm)))
        expect(not asked, "detached", "the model asks for a task still")
        after = output(lm, some_inputs(lm))
        expect(torch.equal(after, before), "detached", "the model computes something else")
        same = names == [name for name, _ in lm.model.named_modules()]
        expect(same, "detached", "modules were left in the model")

    # what the promises share

    def _not_drawn(self, attached: Attached) -> bool:
        """Tell whether the start is the base's own weights, which no seed changes."""
        bases = {p.numel() for p in self._model().model.parameters()}
        return all(p.numel() in bases for p in attached.parameters())

    def _attach(self, lm: LanguageModel, seed: int = 0) -> Attached:
        return attach_method(self.make(), lm, Setting(TASKS, STEPS, seed))

    def _read(self, lm: LanguageModel, folder: Path) -> None:
        """Read what was saved as an adapter folder is read: for use, no more is known."""
        try:
            attach_method(self.make(), lm, Setting(TASKS, seed=9, trains=False)).load(folder)
        except UserError as error:
            expect(False, "saved", f"a base in {lm.model.dtype} does not take it: {error}")

    def _output(
        self, lm: LanguageModel, task: str = TASKS[0], given: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        with torch.no_grad(), evaluation_mode(lm.model), lm.on(task):
            return output(lm, some_inputs(lm) if given is None else given)

    def _written(self, lm: LanguageModel, given: Mapping[str, Tensor], cache: bool) -> Tensor:
        model: Any = lm.model
        with torch.no_grad(), evaluation_mode(model), lm.on(TASKS[0]):
            written: Tensor = model.generate(
                **given,
                max_new_tokens=5,
                do_sample=False,
                use_cache=cache,
                eos_token_id=None,
                pad_token_id=0,
            )
        return written

    def _train(
        self, lm: LanguageModel, attached: Attached, steps: int, begin: int = 0, keep: bool = False
    ) -> None:
        """Take steps of SGD on a loss that differs between tasks; `keep` leaves the gradients."""
        parameters = attached.parameters()
        if not parameters:
            return
        groups = [
            {"params": [*group.parameters], "lr": group.learning_rate or self.rate}
            for group in attached.groups()
        ]
        optimizer = torch.optim.SGD(groups)
        lm.model.train()
        for step in range(begin, begin + steps):
            optimizer.zero_grad()
            torch.manual_seed(step)
            for number, task in enumerate(TASKS):
                with lm.on(task):
                    found = output(lm, some_inputs(lm, seed=step + 2))
                    wave = torch.linspace(-3, 3 + number, found.numel(), dtype=found.dtype)
                    loss = (wave.sin().view_as(found) * found).mean()
                    term = attached.batch_loss()
                    torch.autograd.backward(loss if term is None else loss + term)
            if (term := attached.step_loss()) is not None:
                torch.autograd.backward(term)
            optimizer.step()
            attached.stepped(step)
        lm.model.train(False)
        if not keep:
            optimizer.zero_grad()

    def _refused(self, action: Callable[..., object]) -> bool:
        try:
            action()
        except UserError:
            return True
        return False

    def _equal(self, one: Tensor, other: Tensor, promise: str, text: str) -> None:
        difference = float((one - other).abs().max()) / max(1.0, float(other.abs().max()))
        expect(difference <= TOLERANCE, promise, f"{text}: {difference:.1e}")


def _same(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(some, others, strict=True))


def _reached(parameter: Tensor) -> bool:
    return parameter.grad is not None and bool((parameter.grad != 0).any())


@a_test_for_each(MethodCheck)
class MethodContract(ABC):
    """Subclass under pytest and give a method; each promise becomes a test.

    Attributes:
        families: Which tiny models it is tried on.
    """

    families: ClassVar[Sequence[str]] = FAMILIES

    @abstractmethod
    def method(self) -> Method:
        """Return the method, as it is to be tried."""

    def keep(self, promise: str) -> None:
        """Look at one promise on every model."""
        for family in self.families:
            getattr(MethodCheck(self.method, family), promise)()


def check_method(make: Callable[[], Method], families: Sequence[str] = FAMILIES) -> None:
    """Look at every promise of a method.

    Raises:
        BrokenPromise: Names the first that is broken.
    """
    for family in families:
        check = MethodCheck(make, family)
        for promise in promises_of(MethodCheck):
            getattr(check, promise)()
