"""Which linear modules of a model a method updates, and which it must leave alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from peml.methods.term import Place
from peml.prefix.sites import find_sites
from prefixnas.base.errors import UserError, unknown


def find_targets(
    model: PreTrainedModel, targets: Sequence[str] | None
) -> dict[str, nn.Linear | Conv1D]:
    """Return the linear modules that a method updates, by name, in the model's order.

    Args:
        model: The model.
        targets: Names of linear modules, as in PEFT's ``target_modules``; None means all
            projections of the attention layers.

    Raises:
        UserError: Targets that match nothing, or weights that the model uses in two places.
    """
    linear = linear_modules(model)
    names = target_names(model, targets)
    found = {name: module for name, module in linear.items() if matches(name, names)}
    refuse_shared(model, found)
    return found


def target_names(model: PreTrainedModel, targets: Sequence[str] | None) -> list[str]:
    """Return the names that a user gives, or those of the attention projections.

    Raises:
        UserError: There are none, or one matches nothing.
    """
    if targets is None:
        return attention_projections(model)
    if not targets:
        raise UserError("lora: targets is empty")
    linear = linear_modules(model)
    for target in targets:
        if not any(matches(name, [target]) for name in linear):
            raise unknown("linear module", target, {n.split(".")[-1] for n in linear}, "lora")
    return list(targets)


def attention_projections(model: PreTrainedModel) -> list[str]:
    """Name the linear modules of a model's attention layers, as short as is unambiguous."""
    linear = linear_modules(model)
    paths = [site.path for site in find_sites(model)]
    # BERT and its kin keep the output projection beside the attention module.
    beside = [f"{path.removesuffix('.self')}.output.dense" for path in paths]
    wanted = {
        name
        for name in linear
        if name in beside or any(name.startswith(f"{path}.") for path in paths)
    }
    for parts in range(1, 5):
        short = {".".join(name.split(".")[-parts:]) for name in wanted}
        if {name for name in linear if matches(name, short)} == wanted:
            return sorted(short)
    return sorted(wanted)


def linear_modules(model: PreTrainedModel) -> dict[str, nn.Linear | Conv1D]:
    """Return a model's linear modules by name."""
    return {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D)}


def matches(name: str, targets: Iterable[str]) -> bool:
    """Tell whether a module's name is one of the targets, or ends with one."""
    return any(name == target or name.endswith(f".{target}") for target in targets)


def refuse_shared(model: PreTrainedModel, targets: Mapping[str, nn.Module]) -> None:
    """Refuse weights that other modules use too: merged, the update would change those as well."""
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(name)
    for name, module in targets.items():
        for parameter in module.parameters(recurse=False):
            others = [other for other in owners[id(parameter)] if other != name]
            if others:
                raise UserError(
                    f"lora: module {name!r} shares its weights with {others[0]!r}, which its "
                    "update would change too once it is merged; leave it out of the targets"
                )


def places_of(layers: Mapping[str, Any]) -> list[Place]:
    """Return names and widths of linear layers, Conv1D included."""
    found = []
    for name, layer in layers.items():
        found.append(Place(name, *widths_of(layer)))
    return found


def widths_of(layer: Any) -> tuple[int, int]:
    """Return how many numbers a linear layer reads and writes of a position.

    Its weights do not tell: quantised ones lie in a shape of their own.
    """
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    first, second = layer.weight.shape
    return int(first), int(second)
