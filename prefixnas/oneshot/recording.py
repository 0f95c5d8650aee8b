"""What a differentiable search records of its alphas and of the mixture at its end."""

from __future__ import annotations

import torch
from torch import Tensor

from prefixnas.network.supernet import Supernet
from prefixnas.oneshot.probe import mixed_by_alpha
from prefixnas.run.evaluation import MIXTURE, SOFT, Evaluation
from prefixnas.run.events import Alpha, Warning
from prefixnas.run.run import Run
from prefixnas.space.space import dropout_under_alpha


def alphas_of(net: Supernet, phase: str, step: int, gradient_norm: float | None) -> Alpha:
    """Return the event of a supernet's alphas: what they say, and how steadily they move.

    Args:
        net: The supernet.
        phase: The loop.
        step: Its step.
        gradient_norm: Norm of what moved all alphas; None where they did not move.
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


def evaluate_mixture(run: Run, net: Supernet) -> Evaluation | None:
    """Score the mixture on the split "validation"; also weighted by its probabilities.

    A straight-through mixture is evaluated as its argmax child, so that its own gap is 0 by
    construction; the one that is weighted by the probabilities is the mixture to compare it with.
    """
    found = run.report(MIXTURE, "validation")
    sample = torch.tensor([0.25, 0.75])
    relaxation = net.relaxation
    if not torch.allclose(relaxation.expected(sample), relaxation.probabilities(sample)):
        with mixed_by_alpha(net):
            run.report(SOFT, "validation")
    return found
