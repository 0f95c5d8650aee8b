"""Terms of attention: the mechanism of methods that give attention layers something more to read.

    o = softmax(q [P_k; K]^T) [P_v; V] + term(q)

Keys and values P in front of the text share its softmax; a term beside it is added to the result,
before the output projection. A method is a small module for each layer with `front`, `beside`, or
both. The model is read through `peml.prefix.interception`, as a searched prefix is: the KV cache
holds real tokens only.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from peml.methods.beside import Beside, Part
from peml.methods.method import Attached, Method, Setting
from peml.methods.projections import Projection, Projections, find_projections
from peml.model.probing import is_probing
from peml.prefix.attention import ModulePrefix
from peml.prefix.concat import Concat
from peml.prefix.interception import intercept, own_attention, use_dense_masks
from peml.prefix.positions import count_text, move_text, rotary_modules
from peml.prefix.sites import Site, SiteKind, find_sites
from prefixnas.base.errors import UserError
from prefixnas.base.options import option

if TYPE_CHECKING:
    from peml.model.model import LanguageModel


@dataclass(frozen=True)
class Layer:
    """An attention layer that gets a term.

    Attributes:
        site: Where it is, and the shape of its keys.
        number: Its place among the layers of its kind, from 0.
        count: How many there are of its kind.
        width: The model's width.
        made_by: How it makes its queries, keys and values.
    """

    site: Site
    number: int
    count: int
    width: int
    made_by: Projections


class AttentionTerm(Part):
    """What a method adds to one attention layer.

    Attributes:
        reads_plain: Whether `beside` reads the queries before any rotation.
    """

    reads_plain: bool = False

    def front(self, task: int) -> ModulePrefix | None:
        """Return keys and values in front of the text's; None: none."""
        return None

    def beside(self, query: Tensor, scale: float | None) -> Tensor | None:
        """Return what is added to the result, `[b, q, heads, head_dim]`; None: nothing.

        Args:
            query: `[b, heads, q, head_dim]`, rotated where the model rotates its queries, unless
                the term `reads_plain`.
            scale: What the layer multiplies its products with; None: 1 / sqrt(head_dim).
        """
        return None


@dataclass(frozen=True)
class AttentionMethod(Method):
    """A method that is a term of attention.

    Attributes:
        kinds: Kinds of attention that it is for, where the user names none.
    """

    kinds: ClassVar[tuple[SiteKind, ...]] = ("encoder", "decoder", "cross")
    attention_where: list[Literal["encoder", "decoder", "cross"]] | None = option(
        None, "kinds of attention that read it; none: the method's own"
    )

    @abstractmethod
    def terms(self, layers: Sequence[Layer], tasks: int) -> list[AttentionTerm | None]:
        """Return the term of each layer, None where it gets none; `reset` draws the weights."""

    def front_length(self) -> int:
        """Return how many keys stand in front of the text's."""
        return 0

    def attach(self, lm: LanguageModel, setting: Setting) -> Attached:
        """Put a term on each layer."""
        return AttentionTerms(self, lm, setting)

    def size(self, lm: LanguageModel, tasks: int) -> int:
        """Return how many numbers train, from the shapes alone."""
        layers = self.layers(lm)
        with torch.device("meta"):
            terms = nn.ModuleList(term for term in self.terms(layers, tasks) if term is not None)
        return sum(parameter.numel() for parameter in terms.parameters())

    def layers(self, lm: LanguageModel) -> list[Layer]:
        """Return the attention layers that the method is for.

        Raises:
            UserError: The model has none, or none of a kind that is named.
        """
        where = self.attention_where
        sites = [site for site in find_sites(lm.model, where) if where or site.kind in self.kinds]
        if not sites:
            raise UserError(f"method {self.label!r}: the model has no attention of its kinds")
        same = {site: [other for other in sites if other.kind == site.kind] for site in sites}
        return [
            Layer(site, same[site].index(site), len(same[site]), lm.hidden_size, made_by)
            for site, made_by in zip(sites, find_projections(lm.model, sites), strict=True)
        ]


class AttentionTerms(Beside):
    """The terms of a method on a model's attention layers.

    Args:
        method: The method.
        lm: The model.
        setting: Tasks and seed.

    Raises:
        UserError: The model's attention can't be reached.
    """

    method: AttentionMethod

    def __init__(self, method: AttentionMethod, lm: LanguageModel, setting: Setting) -> None:
        layers = method.layers(lm)
        pairs = zip(layers, method.terms(layers, len(setting.tasks)), strict=True)
        terms = {layer.site.path: term for layer, term in pairs if term is not None}
        weights = nn.ModuleDict({path.replace(".", "/"): term for path, term in terms.items()})
        super().__init__(method, lm, setting, weights)
        self._terms = {lm.model.get_submodule(path): term for path, term in terms.items()}
        # Keys without a rotation see how far from the beginning a query stands.
        self.undo_by(hook.remove for hook in count_text(lm.model))
        if length := method.front_length():
            self.undo_by([use_dense_masks(lm.model)])
            moved = move_text(lm.model, length) if Concat().moves_text(lm.model) else []
            self.undo_by(hook.remove for hook in moved)
        self._plain: dict[nn.Module, Tensor] = {}
        self._projections = self._watch_queries(layers)
        self.undo_by([intercept(self._terms, self._attend)])

    def _watch_queries(self, layers: Sequence[Layer]) -> dict[nn.Module, Projection]:
        """Keep queries from before their rotation for the terms that read those."""
        watched: dict[nn.Module, Projection] = {}
        for layer in layers if rotary_modules(self.lm.model) else ():
            module = self.lm.model.get_submodule(layer.site.path)
            if module not in self._terms or not self._terms[module].reads_plain:
                continue
            if layer.made_by.query is None:
                raise UserError(
                    f"key 'rotated': the queries of {layer.site.path!r} can't be had from before "
                    "their rotation; set it to true"
                )
            watched[module] = layer.made_by.query
            keep = partial(self._keep, module)
            self.undo_by([layer.made_by.query.last.register_forward_hook(keep).remove])
        return watched

    def _keep(self, layer: nn.Module, module: nn.Module, args: Any, output: Tensor) -> None:
        if not is_probing():
            self._plain[layer] = output

    def _attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        if is_probing():
            return own_attention(module)(module, query, key, value, mask, **kwargs)
        term, scale = self._terms[module], kwargs.get("scaling")
        prefix = term.front(self.task)
        if prefix is None:
            output, weights = own_attention(module)(module, query, key, value, mask, **kwargs)
        else:
            output, weights = Concat().read(prefix, module, query, key, value, mask, **kwargs)
        if module in self._projections:
            query = self._projections[module].heads(self._plain.pop(module))
        added = term.beside(query, scale)
        return output if added is None else output + added.to(output.dtype), weights
