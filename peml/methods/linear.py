"""A term on linear layers: the mechanism of all low-rank methods but PEFT's own.

    y = W x + mix(x, drop(x) A^T) B^T          A [k, in], B [out, k]

A and B depend on the trained weights and on the task alone; `mix` weighs the k numbers of each
position by what the layer reads, where a method routes. So a method is a small module with
`factors` and, if it routes, `mix`. Dropout, dtypes, Conv1D, merging, saving, counting are here. The
weights lie beside the model, not in it: its own modules and weights stay as they are.

All parts of a method share one draw of dropout, and a layer keeps ``drop(x)`` and ``A x`` for the
backward pass once, however many parts there are.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peml.methods.beside import Beside
from peml.methods.lowrank import LowRank, Ranked
from peml.methods.masks import Masks
from peml.methods.method import Group, Method, Setting
from peml.methods.term import Pass, Place, Routed, Term
from peml.model.probing import is_probing
from prefixnas.base.errors import UserError, unknown

if TYPE_CHECKING:
    from peml.model.model import LanguageModel


@dataclass(frozen=True)
class LinearMethod(Ranked, Method):
    """A method that is a term on linear layers, without dropout."""

    @property
    def dropout(self) -> float:
        """Dropout on the input of the terms."""
        return 0.0

    @abstractmethod
    def term(self, place: Place, tasks: int) -> Term:
        """Return the term of one layer; `reset` draws its weights."""

    def terms(self, places: Sequence[Place], tasks: int) -> list[Term]:
        """Return the terms of all layers; those that share a module hold the same one."""
        return [self.term(place, tasks) for place in places]

    def attach(self, lm: LanguageModel, setting: Setting) -> LinearTerms:
        """Put a term on each layer."""
        return LinearTerms(self, lm, setting)

    def size(self, lm: LanguageModel, tasks: int) -> int:
        """Return how many numbers train, from the shapes alone."""
        from peml.methods.targets import find_targets, places_of

        with torch.device("meta"):
            places = places_of(find_targets(lm.model, self.lora_targets))
            terms = nn.ModuleList(self.terms(places, tasks))
        return sum(weight.numel() for weight in terms.parameters() if weight.requires_grad)


@dataclass(frozen=True)
class ScaledMethod(LowRank, LinearMethod):
    """A method that is a term on linear layers, with a scale and dropout."""

    @property
    def dropout(self) -> float:
        """Dropout on the input of the terms."""
        return self.lora_dropout


class LinearTerms(Beside):
    """The terms of a method on a model's layers.

    Args:
        method: The method.
        lm: The model, which gets a hook on each layer.
        setting: Tasks and seed.

    Raises:
        UserError: Targets that match nothing, or weights that the model uses in two places.
    """

    method: LinearMethod

    def __init__(self, method: LinearMethod, lm: LanguageModel, setting: Setting) -> None:
        from peml.methods.targets import find_targets, places_of

        self.layers: dict[str, nn.Module] = dict(find_targets(lm.model, method.lora_targets))
        self.terms = nn.ModuleList(method.terms(places_of(self.layers), len(setting.tasks)))
        super().__init__(method, lm, setting, self.terms)
        self._masks = Masks(lm)
        self.undo_by(self._masks.undo)
        pairs = zip(self.layers.values(), self.terms, strict=True)
        hooks = [layer.register_forward_hook(self._hook(term)) for layer, term in pairs]
        self.undo_by(hook.remove for hook in hooks)

    def named(self) -> dict[str, nn.Parameter]:
        """Return every trained weight once, by the name of its layer and its own."""
        names = list(self.layers)
        found = {}
        for name, parameter in self.terms.named_parameters():
            place, _, own = name.partition(".")
            found[f"{names[int(place)]}.{own}"] = parameter
        return found

    def groups(self) -> list[Group]:
        """Return the factors, what does not decay, and the routers."""
        kinds: dict[str, list[nn.Parameter]] = {"factors": [], "undecayed": [], "routers": []}
        seen: set[int] = set()
        for module in self.terms:
            assert isinstance(module, Term)
            for name, parameter in module.named_parameters():
                if not parameter.requires_grad or id(parameter) in seen:
                    continue
                seen.add(id(parameter))
                own = name.split(".")[0]
                kind = "undecayed" if own in module.undecayed else "factors"
                kinds["routers" if own in module.routers else kind].append(parameter)
        rate = self.method.router_learning_rate if isinstance(self.method, Routed) else None
        groups = [
            Group(kinds["factors"]),
            Group(kinds["undecayed"], weight_decay=0.0),
            Group(kinds["routers"], learning_rate=rate, weight_decay=0.0),
        ]
        return [group for group in groups if group.parameters]

    @torch.no_grad()
    def updates(self, task: str | None = None) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the factors A `[k, in]` and B `[out, k]` of a task by layer.

        Raises:
            UserError: The method does not merge, or needs a task.
        """
        if self.method.merges == "no":
            raise UserError(
                f"method {self.method.label!r} does not merge: what it adds depends on the input"
            )
        now = Pass(self._index(task), training=False)
        terms: Any = self.terms
        pairs = zip(self.layers, terms, strict=True)
        return {name: term.factors(now) for name, term in pairs}

    @torch.no_grad()
    def merge(self, task: str | None = None) -> None:
        """Put the updates of a task into the model's own weights, and take the terms out.

        Raises:
            UserError: As `updates`.
        """
        for name, (a, b) in self.updates(task).items():
            layer: Any = self.layers[name]
            delta = b @ a
            # Conv1D, as in GPT-2, holds its weights the other way round.
            layer.weight += (delta if isinstance(layer, nn.Linear) else delta.T).to(
                layer.weight.dtype
            )
        self.detach()

    def _index(self, task: str | None) -> int:
        """Return the place of the named task, or of the one that passes are of."""
        if task is None:
            return self.task
        if task not in self.tasks:
            raise unknown("task", task, self.tasks, f"method {self.method.label!r}")
        return self.tasks.index(task)

    def _hook(self, term: Any) -> Any:
        dropout = self.method.dropout

        def add(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if is_probing():
                return output
            (x, *_) = args
            now = Pass(self.task, layer.training, self._masks.of(layer, x))
            a, b = term.factors(now)
            x = x.to(a.dtype)
            h = term.mix(now, x, F.linear(F.dropout(x, dropout, layer.training), a))
            return output + F.linear(h, b).to(output.dtype)

        return add
