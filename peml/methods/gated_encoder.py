"""UniPELT's parts put into the layers of an encoder, through hooks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor, nn

from peml.methods.beside import Beside
from peml.methods.ends import at_end, find_ends
from peml.methods.gated_layers import GatedLayers, Sizes
from peml.methods.method import Method, Setting
from peml.methods.projections import Projection, find_projections
from peml.model.forward import arguments_of
from peml.model.probing import is_probing
from peml.prefix.concat import Concat
from peml.prefix.interception import intercept, own_attention, use_dense_masks
from peml.prefix.sites import Site

if TYPE_CHECKING:
    from peml.model.model import LanguageModel


class GatedEncoder(Beside):
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
        self.undo_by(
            [
                reader.register_forward_pre_hook(self._see, with_kwargs=True).remove,
                use_dense_masks(model),
            ]
        )
        for layer, site, found, end in zip(self.all.layers, sites, made_by, ends, strict=True):
            module = model.get_submodule(site.path)
            self._layers[module] = layer
            for place, projection in enumerate((found.query, found.value)):
                assert projection is not None
                hook = self._hook(layer, place, projection, module)
                self.undo_by([projection.linear.register_forward_hook(hook).remove])
            self.undo_by([at_end(partial(self._adapt, layer), model.get_submodule(end.path))])
        self.undo_by([intercept(self._layers, self._attend)])

    def _see(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._mask = arguments_of(module, args, kwargs).get("attention_mask")

    def _hook(self, layer: Any, place: int, projection: Projection, attention: nn.Module) -> Any:
        """Return what adds LoRA to a projection's output, and takes the prefix's gate there."""

        def add(linear: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if is_probing():
                return output
            x = args[0].to(layer.a[place].dtype)
            if place == 0:
                self._gates[attention] = layer.gate("prefix", x, self._mask)
            update = layer.update(place, x, self._mask)
            behind = output.shape[-1] - projection.start - update.shape[-1]
            return output + F.pad(update, (projection.start, behind)).to(output.dtype)

        return add

    def _attend(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        if is_probing():
            return own_attention(module)(module, *args, **kwargs)
        prefix = self._layers[module].prefix(self.all.hidden(), self._gates.pop(module))
        return Concat().read(prefix, module, *args, **kwargs)

    def _adapt(self, layer: Any, y: Tensor) -> Tensor:
        added: Tensor = layer.adapt(y.to(layer.down.weight.dtype), self._mask)
        return y + added.to(y.dtype)
