"""When a differentiable search ends before its budget does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from prefixnas.network.mixture import Mixture
from prefixnas.network.supernet import Supernet
from prefixnas.space.ops import Zero


@dataclass
class Settled:
    """The alphas have settled: over some records the same options lead, and little moves.

    Args:
        records: Records over which that must hold; 0: never.
        within: Most that a probability may have moved over them.
    """

    records: int
    within: float
    _seen: list[dict[str, list[float]]] = field(default_factory=list)

    def look(self, net: Supernet) -> str:
        """Take a record; return why the search should end, or an empty text."""
        now = {name: values.tolist() for name, values in net.probabilities().items()}
        self._seen = [*self._seen, now][-self.records - 1 :]
        if not self.records or len(self._seen) <= self.records:
            return ""
        leaders = [{name: _leader(p) for name, p in record.items()} for record in self._seen]
        moved = max(
            (
                max(values) - min(values)
                for name in now
                for values in zip(*(record[name] for record in self._seen), strict=True)
            ),
            default=0.0,
        )
        if any(leader != leaders[0] for leader in leaders) or moved > self.within:
            return ""
        return (
            f"settled: over {self.records} records the same options lead and no probability "
            f"moved by more than {moved:.3g}"
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the records that count."""
        return {"seen": self._seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore them."""
        self._seen = [dict(record) for record in state["seen"]]


class Collapsed:
    """Too many decisions lead to their weakest kind of option.

    DARTS+ (Liang et al. 2019, arXiv 1909.06035) ends a search when a cell holds two skip
    connections: then the alphas follow ease of training, and no longer use. Here an option is weak
    beside another one of its decision that does more: passing on, zeros and dropout do nothing, a
    function without a matrix less than one with a matrix. Decisions among equals don't count.

    Args:
        net: The supernet before anything is pruned.
        above: Largest share of the decisions that may lead to a weak option; 1: never ends.
    """

    def __init__(self, net: Supernet, above: float) -> None:
        self.above = above
        strengths = {
            module.decision: [_strength(part) for part in module.parts]
            for module in net.root.modules()
            if isinstance(module, Mixture)
        }
        self._strengths = {name: s for name, s in strengths.items() if min(s) < max(s)}

    def look(self, net: Supernet) -> str:
        """Return why the search should end, or an empty text."""
        probabilities = net.probabilities()
        weak = [
            name
            for name, strengths in self._strengths.items()
            if strengths[_leader(probabilities[name].tolist())] < max(strengths)
        ]
        if len(weak) <= self.above * len(self._strengths):
            return ""
        return (
            f"collapsed: {len(weak)} of {len(self._strengths)} decisions lead to an option that "
            f"does less than others of theirs ({', '.join(weak)})"
        )


def _strength(part: nn.Module) -> int:
    """Return 2 for an option with a matrix, 1 for another function, 0 for none."""
    if any(parameter.dim() > 1 for parameter in part.parameters()):
        return 2
    leaves = [module for module in part.modules() if not [*module.children()]]
    idle = (nn.Identity, nn.Dropout, nn.ModuleList, Zero)
    return int(any(not isinstance(leaf, idle) for leaf in leaves))


def _leader(probabilities: list[float]) -> int:
    return max(range(len(probabilities)), key=probabilities.__getitem__)


class EarlyStop:
    """The end of a search that has settled or collapsed.

    Args:
        net: The supernet before anything is pruned.
        records: See `Settled`.
        within: See `Settled`.
        above: See `Collapsed`.
    """

    def __init__(self, net: Supernet, records: int, within: float, above: float) -> None:
        self.settled, self.collapsed = Settled(records, within), Collapsed(net, above)

    def look(self, net: Supernet) -> str:
        """Take a record; return why the search should end, or an empty text."""
        return self.settled.look(net) or self.collapsed.look(net)

    def state_dict(self) -> dict[str, Any]:
        """Return what is remembered."""
        return self.settled.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore it."""
        self.settled.load_state_dict(state)
