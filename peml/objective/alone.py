"""LoRA without a prefix, with as many trained weights as LoRA and a prefix have together."""

from __future__ import annotations

from bisect import bisect_left

from peml.lora import LoraHandle


def equal_rank(lora: LoraHandle, weights: int) -> int:
    """Return the rank at which LoRA trains as near to `weights` numbers as any rank makes it.

    Args:
        lora: The layers whose rank is to change.
        weights: How many numbers of theirs are to train.
    """
    enough = 1 + bisect_left(range(1, weights + 1), weights, key=lora.weights)
    return min(max(1, enough - 1), enough, key=lambda rank: abs(lora.weights(rank) - weights))
