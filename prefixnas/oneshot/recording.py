"""What a differentiable search records of its alphas."""

from __future__ import annotations

import torch
from torch import Tensor

from prefixnas.network.supernet import Supernet
from prefixnas.run.events import Alpha, Warning
from prefixnas.run.run import Run
from prefixnas.space.space import dropout_under_alpha


def alphas_of(net: Supernet, phase: str, step: int, gradient_norm: float | None) -> Alpha:
    """Return the event of a supernet's alphas: what they say, and how steadily they move.

    Args:
        net: The supernet.
        phase: The loop.
        step: Its step.
        gradient_norm: Norm of the gradient of all alphas; None where they did not move.
    """
    names = [decision.name for decision in net.decisions]
    flat = torch.cat([alpha.detach() for alpha in net.alphas] or [torch.zeros(1)])
    return Alpha(
        phase,
        step,
        _by_option(net, [net.probabilities()[name] for name in names]),
        _by_option(net, [*net.alphas]),
        {name: entropy.item() for name, entropy in net.entropies().items()},
        gradient_norm,
        flat.var(unbiased=False).item(),
    )


def _by_option(net: Supernet, values: list[Tensor]) -> dict[str, dict[str, float]]:
    return {
        decision.name: dict(zip(decision.options, value.tolist(), strict=True))
        for decision, value in zip(net.decisions, values, strict=True)
    }


def warn_of_dropout(run: Run) -> None:
    """Emit a warning for each choice that puts dropout rates under alpha."""
    for key in dropout_under_alpha(run.space):
        message = f"choice {key!r} puts dropout rates under alpha, whose gradient cannot choose "
        run.emit(Warning(message + "them: the lowest rate tends to win"))
