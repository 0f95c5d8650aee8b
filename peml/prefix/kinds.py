"""The kinds of prefix attention, by name."""

from __future__ import annotations

from collections.abc import Mapping

from peml.prefix.attention import PrefixAttention
from peml.prefix.concat import Concat
from peml.prefix.parallel import Parallel
from prefixnas.base.errors import unknown

ATTENTIONS: Mapping[str, PrefixAttention] = {kind.name: kind for kind in (Parallel(), Concat())}


def prefix_attention(name: str, where: str = "") -> PrefixAttention:
    """Return a kind of prefix attention.

    Args:
        name: Its name.
        where: What names it (a file), for the message.

    Raises:
        UserError: There is none of this name.
    """
    if name not in ATTENTIONS:
        raise unknown("kind of prefix attention", name, ATTENTIONS, where)
    return ATTENTIONS[name]
