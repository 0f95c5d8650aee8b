"""Where one-path sampling cannot work: right in front of a normalisation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from prefixnas.base.errors import UserError
from prefixnas.network.mixture import Branches, Chain, Composite, Mixture
from prefixnas.network.supernet import Supernet

_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)
_HOMOGENEOUS = (nn.Dropout, nn.Identity, nn.ReLU, nn.LeakyReLU)
"""`f(w x) = w f(x)` for `w > 0`: the factor passes them and reaches a normalisation behind."""


def refuse_norm_behind(net: Supernet) -> None:
    """Refuse a sampled mixture with a normalisation right behind it.

    A normalisation undoes the factor `w_i` of the one candidate that was computed, and nearly
    nothing of alpha's gradient is left. With all candidates in the sum it is of no harm.

    Raises:
        UserError: Names the choice.
    """
    for chain in (module for module in net.root.modules() if isinstance(module, Chain)):
        parts = list(_flat(chain))
        for place, part in enumerate(parts):
            for mixture in _last(part):
                if _meets_norm(parts[place + 1 :]):
                    raise UserError(
                        f"relaxation 'one-path': a normalisation stands right behind choice "
                        f"{mixture.decision!r} and undoes the weight of the one candidate that is "
                        "computed, so that its alphas learn nothing; put the normalisation into "
                        "the candidates, or take 'gumbel-hard'"
                    )


def _flat(module: nn.Module) -> Iterator[nn.Module]:
    if isinstance(module, Chain):
        for part in module.parts:
            yield from _flat(part)
    else:
        yield module


def _last(module: nn.Module) -> Iterator[Mixture]:
    """Yield the sampled mixtures whose output is the module's, but for a factor."""
    if isinstance(module, Mixture):
        if module.one_path:
            yield module
        for part in module.parts:
            yield from _last(part)
    elif isinstance(module, Chain):
        for part in reversed(list(_flat(module))):
            yield from _last(part)
            if not _lets_through(part):
                return


def _meets_norm(parts: Sequence[nn.Module]) -> bool:
    """Tell whether a factor of what goes into these parts, in a row, reaches a normalisation."""
    for part in parts:
        if isinstance(part, _NORMS):
            return True
        if isinstance(part, (Mixture, Branches)) and any(
            _meets_norm(list(_flat(each))) for each in part.parts
        ):
            return True
        if not _lets_through(part):
            return False
    return False


def _lets_through(module: nn.Module) -> bool:
    """Tell whether a factor leaves a module as it came in, whatever is chosen in it."""
    if isinstance(module, Composite):
        return all(_lets_through(part) for part in module.parts)
    return isinstance(module, _HOMOGENEOUS)
