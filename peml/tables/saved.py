"""How many bytes a training step keeps for its backward passes, counted exactly.

What autograd keeps is counted once a storage, and given back when the graph lets it go, so that the
largest sum is what a step needs beside weights, gradients and the optimiser's state. Weights and
buffers are not counted: they are there anyway. The same step gives the same number, on any machine
with the same kernels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from peml.objective.objective import JointObjective


class Count:
    """Bytes of distinct storages that something is kept in.

    Args:
        fixed: Storages that are not counted, by their addresses.
    """

    def __init__(self, fixed: set[int]) -> None:
        self.most = 0
        self._fixed = fixed
        self._now = 0
        self._held: dict[int, int] = {}

    def keep(self, tensor: Tensor) -> Any:
        """Count a tensor; return what to keep of it."""
        storage = tensor.untyped_storage()
        address = storage.data_ptr()
        if address in self._fixed:
            return tensor
        if address not in self._held:
            self._now += storage.nbytes()
            self.most = max(self.most, self._now)
        self._held[address] = self._held.get(address, 0) + 1
        return _Kept(self, tensor)

    def let_go(self, tensor: Tensor) -> None:
        """Undo one `keep`."""
        storage = tensor.untyped_storage()
        address = storage.data_ptr()
        self._held[address] -= 1
        if not self._held[address]:
            del self._held[address]
            self._now -= storage.nbytes()


class _Kept:
    """A tensor that autograd keeps, until it forgets this."""

    def __init__(self, count: Count, tensor: Tensor) -> None:
        self.count, self.tensor = count, tensor

    def __del__(self) -> None:
        self.count.let_go(self.tensor)


def used(kept: Any) -> Any:
    """Return the tensor of what `Count.keep` returned."""
    return kept.tensor if isinstance(kept, _Kept) else kept


def saved_bytes(objective: JointObjective, held: Iterable[Tensor] = ()) -> int:
    """Return the most bytes that the next training step keeps at once for backward passes.

    Gradients are left as they were; the next batch is drawn.

    Args:
        objective: The problem.
        held: Weights beside the model that do not train now.
    """
    trained = [weight for group in objective.parameters() for weight in group["params"]]
    model = objective.lm.model
    fixed = {
        tensor.untyped_storage().data_ptr()
        for tensor in [*trained, *held, *model.parameters(), *model.buffers()]
    }
    before = [weight.grad for weight in trained]
    for weight in trained:
        weight.grad = None
    count = Count(fixed)
    with saved_tensors_hooks(count.keep, used):
        objective.backward("train")
    for weight, gradient in zip(trained, before, strict=True):
        weight.grad = gradient
    return count.most
