"""LoRA, a prefix and an adapter in every layer of an encoder, each behind a gate.

A gate is the mean over the text's tokens of sigmoid(w x + c), of what the part reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peml.methods.beside import Beside, Part
from peml.methods.ends import at_end, find_ends
from peml.methods.method import Method, Setting
from peml.methods.projections import Projection, Projections, find_projections
from peml.methods.term import empty, kaiming
from peml.model.probing import is_probing
from peml.prefix.attention import ModulePrefix
from peml.prefix.concat import Concat
from peml.prefix.interception import intercept, own_attention, use_dense_masks
from peml.prefix.sites import Site
from prefixnas.base.errors import UserError

if TYPE_CHECKING:
    from peml.model.model import LanguageModel

GATES = ("query", "value", "prefix", "adapter")


@dataclass(frozen=True)
class Sizes:
    """Sizes of the parts.

    Attributes:
        rank: Of LoRA.
        length: Keys and values in front.
        prefix_hidden: Width between the prefix's two maps.
        reduction: The model's width over the adapter's hidden width.
    """

    rank: int
    length: int
    prefix_hidden: int
    reduction: int


class _Layer(Part):
    def __init__(
        self, sizes: Sizes, site: Site, queries: Projection, values: Projection, width: int
    ) -> None:
        super().__init__()
        r, m, kv = sizes.rank, max(1, width // sizes.reduction), site.kv_heads * site.head_dim
        outs = (queries.shape[0] * queries.shape[1], values.shape[0] * values.shape[1])
        self.site = site
        self.a = nn.ParameterList([empty(r, queries.width_in), empty(r, values.width_in)])
        self.b = nn.ParameterList([empty(out, r) for out in outs])
        self.keys = nn.Linear(sizes.prefix_hidden, 2 * kv)
        self.down, self.up = nn.Linear(width, m), nn.Linear(m, width)
        widths = (queries.width_in, values.width_in, queries.width_in, width)
        self.gates = nn.ModuleDict(
            {name: nn.Linear(size, 1) for name, size in zip(GATES, widths, strict=True)}
        )

    def reset(self) -> None:
        for a, b in zip(self.a, self.b, strict=True):
            kaiming(a)
            nn.init.zeros_(b)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                module.reset_parameters()
        for module in (self.down, self.up):
            nn.init.normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)

    def prefix(self, hidden: Tensor, gate: Tensor) -> ModulePrefix:
        """Return keys and values from `[l, prefix_hidden]`, opened by the rows' gates `[b]`."""
        made = self.keys(hidden).unflatten(-1, (2, self.site.kv_heads, self.site.head_dim))
        key, value = gate[None, :, None, None, None] * made.permute(1, 2, 0, 3)[:, None]
        return ModulePrefix(key, value)


class GatedLayers(Part):
    """The parts of each layer of an encoder, with a gate for each use.

    Args:
        sizes: Their sizes.
        sites: The encoder's attention.
        made_by: How it makes queries and values.
        width: The model's width.

    Raises:
        UserError: A layer has no projections of queries and values of its own.
    """

    def __init__(
        self, sizes: Sizes, sites: Sequence[Site], made_by: Sequence[Projections], width: int
    ) -> None:
        super().__init__()
        self.embedding = empty(sizes.length, width)
        self.first = nn.Linear(width, sizes.prefix_hidden)
        self.layers = nn.ModuleList()
        for site, found in zip(sites, made_by, strict=True):
            if found.query is None or found.value is None:
                raise UserError(
                    f"the layer {site.path!r} has no projections of queries and values that LoRA "
                    "could be put on"
                )
            self.layers.append(_Layer(sizes, site, found.query, found.value, width))

    def reset(self) -> None:
        """Draw what all layers have in common."""
        nn.init.normal_(self.embedding)
        self.first.reset_parameters()

    def hidden(self) -> Tensor:
        """Return what every layer makes its keys and values of, `[l, prefix_hidden]`."""
        return torch.tanh(self.first(self.embedding))


class Gated(Beside):
    """Gated parts in a model's encoder.

    Args:
        method: The method.
        lm: The model.
        setting: Tasks and seed.
        sizes: Sizes of the parts.
        sites: The encoder's attention.
    """

    def __init__(
        self,
        method: Method,
        lm: LanguageModel,
        setting: Setting,
        sizes: Sizes,
        sites: Sequence[Site],
    ) -> None:
        model: Any = lm.model
        made_by = find_projections(model, sites)
        ends = [end for end in find_ends(model) if end.stack == "encoder"][1::2]
        self.all = GatedLayers(sizes, sites, made_by, lm.hidden_size)
        super().__init__(method, lm, setting, self.all)
        self._mask: Tensor | None = None
        self._gates: dict[nn.Module, Tensor] = {}
        self._layers: dict[nn.Module, Any] = {}
        reader = model.get_encoder() if lm.family == "encoder-decoder" else model
        self._undo += [
            reader.register_forward_pre_hook(self._see, with_kwargs=True).remove,
            use_dense_masks(model),
        ]
        for layer, site, found, end in zip(self.all.layers, sites, made_by, ends, strict=True):
            module = model.get_submodule(site.path)
            self._layers[module] = layer
            for place, projection in enumerate((found.query, found.value)):
                assert projection is not None
                hook = partial(self._project, layer, place, projection, module)
                self._undo.append(projection.linear.register_forward_hook(hook).remove)
            self.undo_by([at_end(partial(self._adapt, layer), model.get_submodule(end.path))])
        self._undo.append(intercept(self._layers, self._attend))

    def _see(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._mask = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)

    def _gate(self, layer: Any, name: str, x: Tensor) -> Tensor:
        """Return a number for each row of `[b, t, in]`, the mean over its text."""
        opened = torch.sigmoid(layer.gates[name](x)).squeeze(-1)
        mask = torch.ones_like(opened) if self._mask is None else self._mask.to(opened)
        return (opened * mask).sum(dim=1) / mask.sum(dim=1)

    def _project(
        self,
        layer: Any,
        place: int,
        projection: Projection,
        module: nn.Module,
        linear: nn.Module,
        args: tuple[Tensor, ...],
        output: Tensor,
    ) -> Tensor:
        if is_probing():
            return output
        x = args[0].to(layer.a[place].dtype)
        if place == 0:
            self._gates[module] = self._gate(layer, "prefix", x)
        update = F.linear(F.linear(x, layer.a[place]), layer.b[place])
        update = self._gate(layer, GATES[place], x)[:, None, None] * update
        behind = output.shape[-1] - projection.start - update.shape[-1]
        return output + F.pad(update, (projection.start, behind)).to(output.dtype)

    def _attend(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        if is_probing():
            return own_attention(module)(module, *args, **kwargs)
        prefix = self._layers[module].prefix(self.all.hidden(), self._gates.pop(module))
        return Concat().read(prefix, module, *args, **kwargs)

    def _adapt(self, layer: Any, y: Tensor) -> Tensor:
        read = y.to(layer.down.weight.dtype)
        gate = self._gate(layer, "adapter", read)[:, None, None]
        added: Tensor = gate * layer.up(F.relu(layer.down(read)))
        return y + added.to(y.dtype)
