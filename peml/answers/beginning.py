"""The common beginning of a task's prompts: read once, and gone on from for each of them.

Shots and instructions stand in front of every prompt of a task. A decoder's keys and values of a
token depend on the tokens before it alone, so those of a common beginning are the same in all
prompts. The rows of a batch hold what follows, padded on the left, between the two::

    beginning | padding | rest of the prompt

Positions count real tokens, so that padding changes nothing; attention that counts places in a row
instead (sliding windows, ALiBi) can't go on like this, and reads every prompt as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from peml.batches.collate import Collator
from peml.batches.tokens import Ids
from peml.model.forward import accepts, decoder_outputs
from peml.model.model import LanguageModel

WORTH = 0.2
"""The least share of all tokens that must be saved: what goes on is read a little more slowly."""

_STRETCHED = ("dynamic", "longrope")
"""Kinds of rotary positions that turn a token by the length of the whole input."""


@dataclass(frozen=True)
class Beginning:
    """A beginning of prompts, as a decoder has read it.

    Attributes:
        ids: Its tokens; none: prompts are read as a whole.
        layers: Keys and values of each layer, ``[1, kv_heads, len(ids), head_dim]``.
    """

    ids: Ids = ()
    layers: Sequence[tuple[Tensor, Tensor]] = ()

    def inputs(self, collator: Collator, rows: Sequence[Ids]) -> dict[str, Tensor]:
        """Return what a decoder reads of rows that start with this beginning, on its device.

        Args:
            collator: Pads for the model that has read the beginning.
            rows: Whole rows, each longer than the beginning.

        Returns:
            ``input_ids`` and ``position_ids`` ``[b, t]`` of what follows the beginning, and the
            ``attention_mask`` ``[b, len(ids) + t]``.
        """
        length = len(self.ids)
        rests = collator.pad_left([row[length:] for row in rows])
        mask = torch.nn.functional.pad(rests["attention_mask"], (length, 0), value=1)
        inputs = {
            "input_ids": rests["input_ids"],
            "attention_mask": mask,
            "position_ids": rests["position_ids"] + length,
        }
        return {name: tensor.to(collator.lm.device) for name, tensor in inputs.items()}

    def cache(self) -> Cache | None:
        """Return a cache for a batch that goes on from here; None: there is nothing in it."""
        if not self.ids:
            return None
        return Cache(layers=[_GoingOn(keys, values) for keys, values in self.layers])


class _GoingOn(DynamicLayer):
    """A layer of a cache whose rows have a beginning in common, which is kept once for all.

    Args:
        keys: Of the beginning, ``[1, kv_heads, l, head_dim]``.
        values: As `keys`.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._beginning = keys, values

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Keep new keys and values; return them behind all others."""
        own = super().update(key_states, value_states, *args, **kwargs)
        keys, values = (
            torch.cat([first.expand(rows.shape[0], -1, -1, -1), rows], dim=-2)
            for first, rows in zip(self._beginning, own, strict=True)
        )
        return keys, values

    def get_seq_length(self) -> int:
        """Return how many tokens were read, the beginning's among them."""
        return int(self._beginning[0].shape[-2]) + int(super().get_seq_length())


def common_beginning(rows: Sequence[Ids]) -> Ids:
    """Return the beginning that saves most tokens if it is read once for all rows that have it.

    It leaves each of them a token at least, whose logits are the answer's. Rows may begin
    otherwise, as those do whose own beginning was cut off.

    Returns:
        Its tokens; none where less than `WORTH` of all tokens would be saved.
    """
    ordered = sorted(row[:-1] for row in rows)
    heights = [_shared(one, other) for one, other in pairwise(ordered)]
    # Neighbours share most, so that what is saved is the largest rectangle below the heights.
    best, open_ones = (0, 0, 0), [(0, -1)]
    for place, height in enumerate([*heights, 0]):
        start = place
        while open_ones[-1][1] >= height:
            start, shared = open_ones.pop()
            best = max(best, ((place - start) * shared, shared, start))
        open_ones.append((start, height))
    saved, length, row = best
    return ordered[row][:length] if saved and saved >= WORTH * sum(map(len, rows)) else ()


def _shared(one: Ids, other: Ids) -> int:
    """Return with how many equal tokens two rows begin."""
    differing = (i for i, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1])
    return next(differing, min(len(one), len(other)))


def can_go_on(lm: LanguageModel) -> bool:
    """Tell whether a model's attention goes by positions, whatever padding stands between."""
    model = lm.model
    if lm.family != "decoder" or not lm.goes_on or not accepts(model, "position_ids"):
        return False
    config = model.config.get_text_config()
    layers = DynamicCache(config=config).layers
    return (
        model._can_set_attn_implementation()
        and all(type(layer) is DynamicLayer for layer in layers)
        and not any(getattr(m, "rope_type", None) in _STRETCHED for m in model.modules())
    )


@torch.no_grad()
def read_beginning(lm: LanguageModel, ids: Ids) -> Beginning:
    """Let a decoder read the beginning of prompts, with whatever is attached to it."""
    if not ids:
        return Beginning()
    inputs = {
        "input_ids": torch.tensor([ids], device=lm.device),
        "position_ids": torch.arange(len(ids), device=lm.device)[None],
        "attention_mask": torch.ones(1, len(ids), dtype=torch.long, device=lm.device),
    }
    options: dict[str, Any] = {"use_cache": True}
    if accepts(lm.model, "logits_to_keep"):
        options["logits_to_keep"] = 1
    cache = decoder_outputs(lm.model, inputs, **options).past_key_values
    return Beginning(ids, [(layer.keys, layer.values) for layer in cache.layers])
