"""What every differentiable search records: losses, the alphas, and how steadily they move."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from prefixnas.network.supernet import Supernet
from prefixnas.run.objective import Evaluation
from prefixnas.run.run import Run
from prefixnas.space.space import dropout_under_alpha


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


def emit_discretisation(
    run: Run, mixture: Evaluation, argmax: Evaluation, trained: Evaluation
) -> None:
    """Emit a `discretisation` event: validation scores before, after, trained on, and the gap.

    The gap is the mixture's score minus that of the child cut out of it, before any training.
    """
    run.emit(
        "discretisation",
        mixture=mixture.score,
        argmax_child=argmax.score,
        trained_child=trained.score,
        gap=mixture.score - argmax.score,
    )


def warn_of_dropout(run: Run) -> None:
    """Emit a `warning` for each choice that puts dropout rates under alpha."""
    for key in dropout_under_alpha(run.space):
        run.emit(
            "warning",
            message=f"choice {key!r} puts dropout rates under alpha, whose gradient cannot choose "
            "them: the lowest rate tends to win",
        )
