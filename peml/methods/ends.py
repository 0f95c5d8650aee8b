"""Where the branches of a model's layers end: the linear module that closes each of them.

A layer has residual branches, self-attention and the feed-forward part among them; what an adapter
adds to a branch's output enters behind its last linear module, inside the branch. Names differ from
model to model, so a trial pass is watched for the order in which modules run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from peml.methods.targets import widths_of
from peml.model.probing import is_probing, probing
from peml.prefix.interception import intercept, own_attention
from peml.prefix.sites import Site, find_sites, trial_inputs
from prefixnas.base.errors import UserError
from prefixnas.network.modes import evaluation_mode


@dataclass(frozen=True)
class End:
    """The end of a branch.

    Attributes:
        path: The name of the linear module.
        branch: Which branch of its layer it closes.
        stack: ``"encoder"`` or ``"decoder"``.
        layer: The place of its layer in the stack, from 0.
        width: Numbers that it writes of a position.
    """

    path: str
    branch: Literal["attention", "feed-forward"]
    stack: str
    layer: int
    width: int


def find_ends(model: PreTrainedModel) -> list[End]:
    """Find the ends of self-attention and feed-forward branches, layer by layer.

    Raises:
        UserError: A layer has no such ends.
    """
    sites = [site for site in find_sites(model) if site.kind != "cross"]
    order = _order(model, sites)
    width = int(model.config.get_text_config().hidden_size)
    ends: list[End] = []
    counts = {"encoder": 0, "decoder": 0}
    for site in sites:
        layer = layer_of(model, site)
        ran = [name for name in order if name == site.path or name.startswith(f"{layer}.")]
        wide = [name for name in ran if name == site.path or _width(model, name) == width]
        behind = wide[wide.index(site.path) + 1 :]
        if len(behind) < 2:
            raise UserError(
                f"the ends of the branches of {layer!r} ({model.config.model_type}) can't be found"
            )
        number = counts[site.kind]
        counts[site.kind] += 1
        ends += [
            End(behind[0], "attention", site.kind, number, width),
            End(behind[-1], "feed-forward", site.kind, number, width),
        ]
    return ends


def layer_of(model: PreTrainedModel, site: Site) -> str:
    """Return the name of the layer that an attention module is in: an item of a list of layers.

    Raises:
        UserError: It is in none.
    """
    parts = site.path.split(".")
    for end in range(1, len(parts)):
        if isinstance(model.get_submodule(".".join(parts[:end])), nn.ModuleList):
            return ".".join(parts[: end + 1])
    raise UserError(
        f"the attention {site.path!r} ({model.config.model_type}) is in no list of layers"
    )


def _order(model: PreTrainedModel, sites: list[Site]) -> list[str]:
    """Return the names of linear and attention modules, as their results come in a pass."""
    names = {module: name for name, module in model.named_modules()}
    order: list[str] = []

    def attend(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        order.append(names[module])
        return own_attention(module)(module, *args, **kwargs)

    def note(module: nn.Module, args: Any, output: Any) -> None:
        order.append(names[module])

    linears = [module for module in names if isinstance(module, nn.Linear | Conv1D)]
    undo: list[Callable[[], object]] = [
        intercept([model.get_submodule(site.path) for site in sites], attend),
        *[module.register_forward_hook(note).remove for module in linears],
    ]
    try:
        with evaluation_mode(model), probing():
            model(**trial_inputs(model))
    finally:
        for each in undo:
            each()
    return order


def _width(model: PreTrainedModel, name: str) -> int:
    """Return how many numbers a linear module writes of a position."""
    return widths_of(model.get_submodule(name))[1]


def at_end(add: Callable[[Tensor], Tensor], module: nn.Module) -> Callable[[], object]:
    """Let a module return ``add(y)`` in the place of y; return what undoes it."""
    return module.register_forward_hook(partial(_replaced, add)).remove


def _replaced(add: Callable[[Tensor], Tensor], module: nn.Module, args: Any, output: Tensor) -> Any:
    return output if is_probing() else add(output)
