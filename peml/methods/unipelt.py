"""UniPELT (Mao et al. 2022): LoRA, a prefix and an adapter in every layer, each behind a gate.

    q <- q + g_q B_q A_q x,  v <- v + g_v B_v A_v x          LoRA; the gate is in alpha / r's place
    o = softmax(q [g_p P_k; K]^T) [g_p P_v; V]               P = W_2 tanh(W_1 E)
    y <- y + g_a U relu(D y)                                 at the end of the feed-forward branch

A gate is the mean over the text's tokens of sigmoid(w x + c), of what the part reads. Such a mean
sees the whole input, so the method is for encoders, alone or in front of a decoder. Unlike in the
public code, padding takes no part in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from peml.methods.gated_encoder import GatedEncoder
from peml.methods.gated_layers import GatedLayers, Sizes
from peml.methods.method import Attached, Merges, Method, Setting
from peml.methods.projections import find_projections
from peml.prefix.sites import Site, find_sites
from prefixnas.base.errors import UserError
from prefixnas.base.options import option

if TYPE_CHECKING:
    from peml.model.model import LanguageModel


@dataclass(frozen=True)
class UniPelt(Method):
    """LoRA on queries and values, a prefix and an adapter, which each layer opens by gates."""

    label: ClassVar[str] = "UniPELT"
    merges: ClassVar[Merges] = "no"
    starts_at_base: ClassVar[bool] = False
    changes_keys: ClassVar[bool] = True
    lora_rank: int = option(8, "rank r", at_least=1, at_most=10_000)
    prompt_length: int = option(10, "keys and values in front", at_least=1, at_most=10_000)
    prefix_hidden: int = option(512, "width between the prefix's two maps", at_least=1)
    reduction: int = option(16, "hidden width over the adapter's width", at_least=1)

    def attach(self, lm: LanguageModel, setting: Setting) -> Attached:
        """Put the three parts into each layer of the encoder."""
        return GatedEncoder(self, lm, setting, self.sizes, self.sites(lm))

    @property
    def sizes(self) -> Sizes:
        """Sizes of the parts."""
        return Sizes(self.lora_rank, self.prompt_length, self.prefix_hidden, self.reduction)

    def size(self, lm: LanguageModel, tasks: int) -> int:
        """Return how many numbers train, from the shapes alone."""
        sites = self.sites(lm)
        made_by = find_projections(lm.model, sites)
        with torch.device("meta"):
            weights = GatedLayers(self.sizes, sites, made_by, lm.hidden_size)
        return sum(parameter.numel() for parameter in weights.parameters())

    def sites(self, lm: LanguageModel) -> list[Site]:
        """Return the encoder's attention.

        Raises:
            UserError: The model has none.
        """
        if lm.family == "decoder":
            raise UserError(
                f"method {self.label!r} is for models with an encoder: its gates are means over "
                "the whole input, which a decoder must not see"
            )
        return list(find_sites(lm.model, ["encoder"]))
