"""What every differentiable search records: losses, the alphas, and how steadily they move."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from prefixnas.run import Run
from prefixnas.space import dropout_under_alpha
from prefixnas.supernet import Supernet


def emit_step(
    run: Run,
    phase: str,
    step: int,
    total: int,
    losses: Mapping[str, float],
    rate: float,
    net: Supernet | None = None,
) -> None:
    """Emit a `step` event, with the entropy of the alphas (nats) where a supernet is trained."""
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
    )


def emit_alphas(
    run: Run, phase: str, step: int, net: Supernet, gradient_norm: Tensor | None
) -> None:
    """Emit an `alpha` event: probabilities, the gradient's norm, the variance of the alphas."""
    probabilities = net.probabilities()
    flat = torch.cat([alpha.detach() for alpha in net.alphas] or [torch.zeros(1)])
    run.emit(
        "alpha",
        phase=phase,
        step=step,
        probabilities={
            decision.name: dict(
                zip(decision.options, probabilities[decision.name].tolist(), strict=True)
            )
            for decision in net.decisions
        },
        gradient_norm=gradient_norm.item() if gradient_norm is not None else None,
        variance=flat.var(unbiased=False).item(),
    )


def warn_of_dropout(run: Run) -> None:
    """Emit a `warning` for each choice that puts dropout rates under alpha."""
    for key in dropout_under_alpha(run.space):
        run.emit(
            "warning",
            message=f"choice {key!r} puts dropout rates under alpha, whose gradient cannot choose "
            "them: the lowest rate tends to win",
        )
