"""Where one-path sampling cannot work: right in front of a normalisation."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from torch import nn

from prefixnas.base.errors import UserError
from prefixnas.network.mixture import Branches, Chain, Mixture
from prefixnas.network.supernet import Supernet

_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)


def refuse_norm_behind(net: Supernet) -> None:
    """Refuse a sampled mixture with a normalisation right behind it.

    A normalisation undoes the factor `w_i` of the one candidate that was computed, and nearly
    nothing of alpha's gradient is left. With all candidates in the sum it is of no harm.

    Raises:
        UserError: Names the choice.
    """
    for chain in (module for module in net.root.modules() if isinstance(module, Chain)):
        for part, behind in pairwise(_flat(chain)):
            for mixture in _last(part):
                if _starts_with_norm(behind):
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
    """Yield the sampled mixtures whose output is the module's."""
    if isinstance(module, Mixture):
        if module.one_path:
            yield module
        for part in module.parts:
            yield from _last(part)
    elif isinstance(module, Chain) and len(module.parts):
        yield from _last(list(_flat(module))[-1])


def _starts_with_norm(module: nn.Module) -> bool:
    if isinstance(module, (Mixture, Branches)):
        return any(_starts_with_norm(part) for part in module.parts)
    first = next(_flat(module), None)
    return isinstance(first, _NORMS)
