"""This process as if `pip install .` had installed the core alone: other packages are not found."""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from typing import Any


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def core() -> set[str]:
    """Return the packages that the project and what it needs name, extras left out."""
    found, waiting = set[str](), ["prefixnas"]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        try:
            lines = requires(name) or []
        except PackageNotFoundError:  # for another system or another Python
            continue
        kept = (line for line in lines if "extra ==" not in line)
        waiting += [plain(re.split(r"[^\w.-]", line, maxsplit=1)[0]) for line in kept]
    return found


class Without:
    """A finder that does not find some modules."""

    def __init__(self, finder: Any, names: set[str]) -> None:
        self._finder, self._names = finder, names

    def find_spec(self, name: str, *args: Any) -> Any:
        hidden = name.partition(".")[0] in self._names
        return None if hidden else self._finder.find_spec(name, *args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._finder, name)


def hide() -> None:
    """Hide all packages but those of the core from here on."""
    wanted = core()
    hidden = {
        module
        for module, packages in packages_distributions().items()
        if not wanted & {plain(package) for package in packages}
    }
    sys.meta_path[:] = [Without(finder, hidden) for finder in sys.meta_path]  # type: ignore[misc]
