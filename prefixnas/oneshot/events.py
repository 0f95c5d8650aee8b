"""What a differentiable search records of its alphas."""

from __future__ import annotations

import torch
from torch import Tensor

from prefixnas.network.supernet import Supernet
from prefixnas.run.run import Run
from prefixnas.space.space import dropout_under_alpha


def gradient_norms(weights: float | None, alphas: Tensor | None) -> dict[str, float | None]:
    """Return the norms of a search step, for `emit_step`; None where something did not move."""
    return {
        "weight_gradient_norm": weights,
        "alpha_gradient_norm": alphas.item() if alphas is not None else None,
    }


def emit_alphas(
    run: Run, phase: str, step: int, net: Supernet, gradient_norm: Tensor | None
) -> None:
    """Emit an `alpha` event: alphas, what they say per decision, how steadily they move.

    Args:
        run: The run.
        phase: The loop.
        step: Its step.
        net: The supernet.
        gradient_norm: Norm of the gradient of all alphas; None where they did not move.
    """
    probabilities, entropies = net.probabilities(), net.entropies()
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
        alphas={
            decision.name: dict(zip(decision.options, alpha.tolist(), strict=True))
            for decision, alpha in zip(net.decisions, net.alphas, strict=True)
        },
        entropies={name: entropy.item() for name, entropy in entropies.items()},
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
