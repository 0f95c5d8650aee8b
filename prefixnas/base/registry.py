"""Names for strategies, operations, spaces, relaxations and objectives.

Each kind has one `Registry`. An object is found in it when it was registered by the decorator
(`@register_op("swish")`) or named in the entry-point group of an installed package, so that an
outside package adds to the command line without a change here:

    [project.entry-points."prefixnas.strategies"]
    hill-climb = "my_package.hill_climb:HillClimb"
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from prefixnas.base.errors import UserError, unknown

T = TypeVar("T")


class Registry(Generic[T]):
    """A mapping from unique lower-case names to objects of one kind.

    Args:
        kind: What is registered, in the singular ("strategy"); used in messages and, in the
            plural, as the entry-point group `prefixnas.<plural>`.
        group: The entry-point group.
    """

    def __init__(self, kind: str, group: str) -> None:
        self.kind = kind
        self.group = group
        self._registered: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that registers its argument under `name`.

        Raises:
            ValueError: The name is not lower case or is taken by another object.
        """
        if name != name.lower() or not name.strip():
            raise ValueError(f"{self.kind} name {name!r} must be lower case and not empty")

        def add(item: T) -> T:
            known = self._registered.get(name)
            if known is not None and not _same_definition(known, item):
                raise ValueError(f"{self.kind} {name!r} is registered already, by {known!r}")
            self._registered[name] = item
            return item

        return add

    def names(self) -> list[str]:
        """Return every known name, sorted; nothing is imported for it."""
        return sorted({*self._registered, *self._entry_points()})

    def __contains__(self, name: str) -> bool:
        """Tell whether there is an object called `name`; nothing is imported for it."""
        # Reading the entry points of everything installed takes milliseconds.
        return name in self._registered or name in self._entry_points()

    def get(self, name: str, where: str = "") -> T:
        """Return the object called `name`.

        Raises:
            UserError: No such name, or the package that offers it cannot be imported.
        """
        if name in self._registered:
            return self._registered[name]
        # One package may be seen twice (an editable install and its build), with equal values.
        points = {point.value: point for point in self._entry_points().get(name, ())}
        if not points:
            raise unknown(self.kind, name, self.names(), where)
        if len(points) > 1:
            raise UserError(
                f"{self.kind} {name!r} is offered by several installed packages: "
                f"{', '.join(sorted(points))}; uninstall all but one"
            )
        ((value, point),) = points.items()
        try:
            item: T = point.load()
        except Exception as error:
            raise UserError(
                f"{self.kind} {name!r} of entry point {value!r} "
                f"cannot be loaded: {type(error).__name__}: {error}"
            ) from error
        self._registered[name] = item
        return item

    def name_of(self, item: T) -> str | None:
        """Return the name that `item`, a class or function, is found by; None: by none."""
        named = [name for name, known in self._registered.items() if known is item]
        module, inside = getattr(item, "__module__", None), getattr(item, "__qualname__", None)
        named += [
            name
            for name, points in self._entry_points().items()
            if any(point.value == f"{module}:{inside}" for point in points)
        ]
        return min(named, default=None)

    def _entry_points(self) -> dict[str, list[EntryPoint]]:
        found: dict[str, list[EntryPoint]] = {}
        for point in entry_points(group=self.group):
            found.setdefault(point.name, []).append(point)
        return found


def _same_definition(one: object, other: object) -> bool:
    """A module that is imported twice (as a plugin and by a test) defines the same thing twice."""
    names = [
        (getattr(x, "__qualname__", None), getattr(x, "__module__", None)) for x in (one, other)
    ]
    return one is other or (names[0][0] is not None and names[0] == names[1])
