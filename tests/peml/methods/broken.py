"""Methods that break one promise each: what a contract must notice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from peml.methods.linear import LinearTerms, ScaledMethod
from peml.methods.method import Merges, Setting
from peml.methods.term import Pass, Place, Term, by_task, empty, kaiming
from peml.model.model import LanguageModel
from prefixnas.base.errors import UserError


class PlainTerm(Term):
    """LoRA, with a B of each task."""

    per_task = ("b",)

    def __init__(self, place: Place, tasks: int) -> None:
        super().__init__()
        self.a = empty(2, place.width_in)
        self.b = by_task(tasks, place.width_out, 2)

    def reset(self) -> None:
        kaiming(self.a)
        for b in self.b:
            nn.init.zeros_(b)

    def factors(self, now: Pass) -> tuple[Tensor, Tensor]:
        return self.a, self.b[now.task]


@dataclass(frozen=True)
class Plain(ScaledMethod):
    """Keeps every promise; what follows breaks one each."""

    label: ClassVar[str] = "plain"
    needs_task: ClassVar[bool] = True
    merges: ClassVar[Merges] = "per task"
    terms_class: ClassVar[type[Any]] = PlainTerm
    attached_class: ClassVar[type[LinearTerms]] = LinearTerms

    def term(self, place: Place, tasks: int) -> Term:
        made: Term = self.terms_class(place, tasks)
        return made

    def attach(self, lm: LanguageModel, setting: Setting) -> LinearTerms:
        return self.attached_class(self, lm, setting)


def plain(**changes: Any) -> Callable[[], Plain]:
    """Return what makes a plain method with other class attributes."""
    return dataclass(frozen=True)(type("Broken", (Plain,), {**changes, "__annotations__": {}}))


class NotZero(PlainTerm):
    def reset(self) -> None:
        super().reset()
        for b in self.b:
            b.add_(0.1)


class Unseeded(LinearTerms):
    def reset(self, seed: int) -> None:
        super().reset(seed + len(getattr(self, "_resets", [])))
        self._resets = [*getattr(self, "_resets", []), seed]


class Idle(PlainTerm):
    def __init__(self, place: Place, tasks: int) -> None:
        super().__init__(place, tasks)
        self.idle = empty(3)


class Thief(LinearTerms):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        next(iter(self.lm.model.parameters())).requires_grad_(True)


class Miscounted(Plain):
    def size(self, lm: LanguageModel, tasks: int) -> int:
        return super().size(lm, tasks) + 1


class OneTask(PlainTerm):
    def factors(self, now: Pass) -> tuple[Tensor, Tensor]:
        return self.a, sum(self.b)  # type: ignore[return-value]


class Careless(LinearTerms):
    @contextmanager
    def on(self, task: str) -> Iterator[None]:
        with super().on(task if task in self.tasks else self.tasks[0]):
            yield


class Noisy(PlainTerm):
    def factors(self, now: Pass) -> tuple[Tensor, Tensor]:
        return self.a, self.b[now.task] * torch.rand(1, dtype=self.a.dtype)


class SeesAll(PlainTerm):
    """What it adds depends on all positions at once: on padding, and on what a cache leaves out."""

    def mix(self, now: Pass, x: Tensor, h: Tensor) -> Tensor:
        return h * x.mean(dim=1, keepdim=True).sum(-1, keepdim=True)


class HalfMerged(LinearTerms):
    def updates(self, task: str | None = None) -> dict[str, tuple[Tensor, Tensor]]:
        return {name: (a, b / 2) for name, (a, b) in super().updates(task).items()}


class HalfSaved(LinearTerms):
    def load(self, folder: Path) -> None:
        super().load(folder)
        with torch.no_grad():
            self.parameters()[0].mul_(0.5)


class Scheduled(Plain):
    """Asks for the number of steps, although nothing trains."""

    def attach(self, lm: LanguageModel, setting: Setting) -> LinearTerms:
        if not setting.total_steps:
            raise UserError("needs the number of steps")
        return super().attach(lm, setting)


class Forgetful(LinearTerms):
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


class Counting(LinearTerms):
    """A term of the loss that counts passes: a recomputed pass counts twice."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.passes = 0
        first = next(iter(self.layers.values()))
        self.undo_by([first.register_forward_hook(self._count).remove])

    def _count(self, *args: Any) -> None:
        self.passes += self.lm.model.training

    def batch_loss(self) -> Tensor | None:
        found: Tensor = self.passes * sum(p.square().sum() for p in self.parameters())  # type: ignore[assignment]
        self.passes = 0
        return found


class Repeating(LinearTerms):
    def batch_loss(self) -> Tensor | None:
        return torch.ones(())


class Sticky(LinearTerms):
    def detach(self) -> None:
        self._undo.pop()()


BROKEN: dict[str, Callable[[], Any]] = {
    "start": plain(terms_class=NotZero),
    "reset": plain(attached_class=Unseeded),
    "gradients": plain(terms_class=Idle),
    "ownership": plain(attached_class=Thief),
    "counted": dataclass(frozen=True)(Miscounted),
    "routed": plain(terms_class=OneTask),
    "tasks": plain(attached_class=Careless),
    "evaluation": plain(terms_class=Noisy),
    "generation": plain(terms_class=SeesAll),
    "padding": plain(terms_class=SeesAll),
    "merging": plain(attached_class=HalfMerged),
    "saved": plain(attached_class=HalfSaved),
    "resumed": plain(attached_class=Forgetful),
    "checkpointing": plain(attached_class=Counting),
    "terms": plain(attached_class=Repeating),
    "detached": plain(attached_class=Sticky),
}
"""For each promise a method that breaks it."""
