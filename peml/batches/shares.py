"""A rank's share of a batch, its parts, and draws that do not depend on how batches are split.

Dropout masks are drawn for the whole batch on every rank, which keeps its own rows of them. So all
ranks stay in the same random state, and any number of processes computes what one does, up to the
order of its sums. The parts that a rank computes one after the other (micro-batches) draw in the
same way, each from the same random state.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from prefixnas.base.errors import UserError
from prefixnas.run.ranks import Ranks


@dataclass(frozen=True)
class Share:
    """A rank's rows of a batch.

    Attributes:
        rows: Which.
        total: Rows of the whole batch.
        weight: What the mean over these rows counts for in the mean over the batch; 0 where there
            is no row for this rank: it computes one all the same, to draw what the others draw.
    """

    rows: slice
    total: int
    weight: float

    @classmethod
    def of(cls, ranks: Ranks, total: int, place: int) -> Share:
        """Split a batch into shares that differ by a row at most.

        Args:
            ranks: This rank.
            total: Rows of the batch.
            place: The batch's place in its step; it says which rank gets the odd row.
        """
        turn = (ranks.rank + place) % ranks.count
        start, stop = total * turn // ranks.count, total * (turn + 1) // ranks.count
        if start == stop:
            return cls(slice(0, 1), total, 0.0)
        return cls(slice(start, stop), total, (stop - start) / total)

    def parts(self, most: int | None) -> list[Share]:
        """Split the rows further, `most` at a time; the weights add up to that of all of them."""
        if most is None or self.size <= most:
            return [self]
        starts = range(self.rows.start, self.rows.stop, most)
        cuts = [slice(start, min(start + most, self.rows.stop)) for start in starts]
        each = self.weight / self.size
        return [Share(cut, self.total, each * (cut.stop - cut.start)) for cut in cuts]

    @property
    def size(self) -> int:
        """Number of rows."""
        return int(self.rows.stop - self.rows.start)


class WholeDraws(TorchFunctionMode):
    """While active, dropout on a share's rows is a part of dropout on the whole batch.

    Args:
        share: Which part.
    """

    def __init__(self, share: Share) -> None:
        super().__init__()
        self.share = share

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Put our own in the place of torch's two functions with dropout; leave all others."""
        given = dict(kwargs or {})
        if func is F.dropout:
            return self._dropout(*args, **given)
        if func is F.scaled_dot_product_attention:
            return self._attention(*args, **given)
        return func(*args, **given)

    def _mask(self, like: Tensor, probability: float) -> Tensor:
        """Return what dropout multiplies the rows of `like` by."""
        each, rest = divmod(like.shape[0], self.share.size)
        whole = like.shape[0] if rest else each * self.share.total
        drawn = F.dropout(like.new_ones(whole, *like.shape[1:]), probability, True)
        start = 0 if rest else each * self.share.rows.start
        return drawn[start : start + like.shape[0]]

    def _dropout(
        self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        if not training or p == 0:
            return F.dropout(input, p, training, inplace)
        return input * self._mask(input, p)

    def _attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if not dropout_p:
            return F.scaled_dot_product_attention(
                query, key, value, attn_mask, 0.0, is_causal, scale=scale, enable_gqa=enable_gqa
            )
        if enable_gqa:
            groups = query.shape[-3] // key.shape[-3]
            key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
        logits = query @ key.mT * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
        if is_causal:
            seen = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).tril()
            logits = logits.masked_fill(~seen, -torch.inf)
        if attn_mask is not None:
            boolean = attn_mask.dtype is torch.bool
            logits = logits.masked_fill(~attn_mask, -torch.inf) if boolean else logits + attn_mask
        weights = logits.softmax(-1)
        return weights * self._mask(weights, dropout_p) @ value


class Shares:
    """Splits the batches of one training step over the ranks, and puts its gradients together.

    Args:
        ranks: This rank and the others.
        most: Most rows of a batch to compute at once; None: all of a rank's.
        even: Whether all ranks have to compute as many parts.
    """

    def __init__(self, ranks: Ranks, most: int | None = None, *, even: bool = False) -> None:
        self.ranks, self.most, self.even = ranks, most, even
        self._share: Share | None = None

    def share(self, total: int, place: int) -> Share:
        """Return this rank's share of a batch of `total` rows, see `Share.of`."""
        return Share.of(self.ranks, total, place)

    def parts(self, share: Share) -> Iterator[Share]:
        """Yield the parts of a share that are computed one after the other.

        Each begins in the random state in which the first did, and so draws what the whole would.

        Raises:
            UserError: A part drew other random numbers than the first.
        """
        parts = share.parts(self.most)
        if self.even and self.most is not None:
            largest = math.ceil(share.total / self.ranks.count)
            missing = math.ceil(largest / self.most) - len(parts)
            parts += [Share(slice(0, 1), share.total, 0.0)] * missing
        before, after = _states(), 0.0
        for number, part in enumerate(parts):
            if number:
                _set_states(before)
            yield part
            if number and _state() != after:
                raise UserError(
                    "this model draws random numbers that cannot be split over parts of a batch; "
                    "leave micro_batch_size out"
                )
            after = _state() if len(parts) > 1 else 0.0

    @contextmanager
    def draws(self, share: Share) -> Iterator[None]:
        """Draw for the whole batch meanwhile, where there is more than this rank's share."""
        self._share = share
        with self._mode():
            yield

    def again(self) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        """Return contexts for activations that are computed, and computed once more."""
        return nullcontext(), self._mode()

    def _mode(self) -> AbstractContextManager[Any]:
        if self._share is None or (self.ranks.count == 1 and self._share.size == self._share.total):
            return nullcontext()
        return WholeDraws(self._share)

    def gather(
        self, leaves: Sequence[Tensor], before: Sequence[Tensor | None], losses: dict[str, float]
    ) -> dict[str, float]:
        """Sum gradients and losses over the ranks.

        Args:
            leaves: What was differentiated by; they hold this rank's part of the gradient.
            before: The gradients that they held before, to which the sums are added.
            losses: This rank's part of the loss of each task.

        Returns:
            The losses.

        Raises:
            UserError: The ranks drew different random numbers.
        """
        if self.ranks.count == 1:
            return losses
        held = [float(leaf.grad is not None) for leaf in leaves]
        rows = self.ranks.rows(
            torch.tensor([_state(), *losses.values(), *held], dtype=torch.float64)
        )
        if (rows[:, 0] != rows[0, 0]).any():
            raise UserError(
                "this model draws random numbers that cannot be split over several processes; "
                "train it in one (processes: 1)"
            )
        reached = [
            leaf
            for leaf, any_rank in zip(leaves, rows[:, 1 + len(losses) :].any(0), strict=True)
            if any_rank
        ]
        for leaf in reached:
            leaf.grad = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        self.ranks.sum([leaf.grad for leaf in reached if leaf.grad is not None])
        for leaf, gradient in zip(leaves, before, strict=True):
            if gradient is not None:
                leaf.grad = gradient if leaf.grad is None else leaf.grad.add_(gradient)
        sums = rows[:, 1 : 1 + len(losses)].sum(0).tolist()
        return dict(zip(losses, sums, strict=True))


def _states() -> list[Tensor]:
    """Return the random states of this rank: the CPU's, and its GPU's."""
    states = [torch.get_rng_state()]
    if torch.cuda.is_available():
        states.append(torch.cuda.get_rng_state())
    return states


def _set_states(states: Sequence[Tensor]) -> None:
    torch.set_rng_state(states[0])
    for state in states[1:]:
        torch.cuda.set_rng_state(state)


def _state() -> float:
    """Return a number for the random state of this rank."""
    return float(zlib.crc32(b"".join(state.numpy().tobytes() for state in _states())))
