"""What every differentiable search records: losses, the alphas, and how steadily they move."""

from __future__ import annotations

from collections.abc import Mapping

from prefixnas.network.supernet import Supernet
from prefixnas.run.run import Run


def emit_step(
    run: Run,
    phase: str,
    step: int,
    total: int,
    losses: Mapping[str, float],
    rate: float,
    net: Supernet | None = None,
    norms: Mapping[str, float | None] | None = None,
) -> None:
    """Emit a `step` event.

    Args:
        run: The run.
        phase: The loop.
        step: Its step, from 0.
        total: Its steps.
        losses: The loss of each task.
        rate: The learning rate.
        net: The supernet, where one is trained: the entropy of its alphas (nats) is recorded.
        norms: More numbers of this step, by name: norms of gradients.
    """
    entropy = {"entropy": net.entropy().item()} if net is not None else {}
    run.emit(
        "step",
        phase=phase,
        step=step,
        total=total,
        losses=dict(losses),
        loss=sum(losses.values()) / len(losses),
        lr=rate,
        **entropy,
        **(norms or {}),
    )
