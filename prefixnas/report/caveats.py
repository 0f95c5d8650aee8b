"""Where the analysis of the PEML paper (section 7.2) does not hold for a run."""

from __future__ import annotations

from prefixnas.run.events import Prune
from prefixnas.run.record import Record


def caveats(record: Record) -> list[str]:
    """Return where the paper's argument does not hold for this run, or cannot be tested on it."""
    config = record.config
    found = [
        "Theorem 7.1 compares runs of different length T, each with the step size c/sqrt(T); one "
        "run can only show how its own gradient went",
        f"weights move by {config.get('optimizer', 'adamw')} with a learning rate of their own "
        "schedule and with clipping, not by plain SGD with c/sqrt(T)",
        "the recorded norms are those of single batches: their noise (sigma^2 of assumption 2) "
        "does not fall with T",
        "with simultaneous updates, weights and alphas take one SGD step on the pair: the descent "
        "lemma (eq. 22) covers it already, and the coupling term is an addition to it",
        "eq. 27 takes L as a Lipschitz constant of the loss; assumption 1 makes it one of the "
        "gradient. Both are estimated here, only the first one bounds the gap",
    ]
    if config.get("update", "logits") == "logits":
        found.append(
            "alphas are logits and move by Adam; the paper's lie on the simplex (--update "
            "projected). L_theta_alpha is that of the logits' gradient"
        )
    else:
        found.append(
            "on the simplex the gradient need not vanish at the best point (it may lie on the "
            "border), so that no 1/sqrt(T) can hold for it, only for the projected gradient"
        )
    if config.get("level", "joint") != "joint":
        found.append(
            f"level {config['level']!r} moves alphas on another loss than the weights: there is "
            "no common f, and theorem 7.1 says nothing about it"
        )
    if config.get("relaxation") in ("ste", "gumbel-hard", "one-path"):
        found.append(
            f"relaxation {config['relaxation']!r} takes a gradient that is not that of its loss: "
            "the gradient is biased, which assumption 2 excludes. The gap is measured from the "
            "mixture of the probabilities, which it never trained"
        )
    if config.get("entropy_weight", 0) and config.get("entropy_scale") == "gradient":
        found.append(
            "the entropy's lambda follows the data's gradient from step to step (entropy_scale "
            "gradient): with it there is no one f whose gradient moves the alphas"
        )
    if config.get("entropy_weight", 0):
        found.append(
            "the entropy term is not smooth where a probability is 0: assumption 1 fails there. "
            "The gap is measured without it; the norms of single steps are with it"
        )
    if record.of(Prune):
        found.append("candidates were pruned on the way: the loss of the end is another function")
    return found
