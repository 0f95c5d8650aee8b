"""Method and prefix one after the other: the key `order`.

What was trained first is held while the other one trains. Heads are of both: without them an
encoder-only model has no outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peml.methods.method import Attached, Group
from prefixnas.base.errors import UserError
from prefixnas.run.objective import Order

ORDERS: Mapping[str, Order] = {
    "parallel": "together",
    "lora-first": "own first",
    "prefix-first": "module first",
}
"""By the key's value, which of the method (the objective's own) and the prefix comes first."""


class Resting(Attached):
    """A method that is in the model and learns nothing, at a reset neither.

    Its dropout goes on, as that of the base model does.

    Args:
        awake: The method, whose weights get no gradient until `wake`.
    """

    def __init__(self, awake: Attached) -> None:
        self.awake, self.method, self.tasks = awake, awake.method, awake.tasks
        self._weights = awake.parameters()
        for weight in self._weights:
            weight.requires_grad_(False)

    def wake(self) -> Attached:
        """Return the method, which learns from now on."""
        for weight in self._weights:
            weight.requires_grad_(True)
        return self.awake

    def groups(self) -> list[Group]:
        """Return nothing."""
        return []

    def reset(self, seed: int) -> None:
        """Keep what was learned."""

    def batch_loss(self) -> None:
        """Forget the term of the forward passes: it is for the method's own weights."""
        self.awake.batch_loss()

    def state_dict(self) -> dict[str, Any]:
        """Return the method's."""
        return self.awake.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Give it to the method."""
        self.awake.load_state_dict(state)

    def save(self, folder: Path) -> None:
        """Write the method."""
        self.awake.save(folder)

    def load(self, folder: Path) -> None:
        """Read the method."""
        self.awake.load(folder)

    def detach(self) -> None:
        """Take the method out."""
        self.awake.detach()


def refuse_nothing_to_order(order: str, what: str) -> None:
    """Refuse an order where there is one part alone.

    Args:
        order: The key's value.
        what: What there is not.

    Raises:
        UserError: Always, but for ``parallel``.
    """
    if ORDERS[order] != "together":
        raise UserError(f"key 'order': {order!r} has nothing to order: {what}; leave it out")


def refuse_proxy(order: str) -> None:
    """Refuse a search on a smaller problem whose method is not the one that was trained.

    Raises:
        UserError: The order is ``lora-first``.
    """
    if ORDERS[order] == "own first":
        raise UserError(
            f"key 'proxy': with order {order!r} the prefix is searched beside the trained method, "
            "which a smaller problem lacks; leave it out, and the proxy is fewer steps on the "
            "whole problem"
        )
