"""The spaces that contracts are checked on."""

from __future__ import annotations

from importlib import resources

from prefixnas.space.loading import load_space
from prefixnas.space.space import SearchSpace


def shipped_spaces() -> list[SearchSpace]:
    """Return the shipped spaces in which there is something to choose and any objective can."""
    files = resources.files("prefixnas.search_spaces").iterdir()
    names = sorted(file.name for file in files if file.name.endswith(".yaml"))
    spaces = [load_space(name.removesuffix(".yaml")) for name in names]
    return [space for space in spaces if space.size > 1 and not space.knobs]
