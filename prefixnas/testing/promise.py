"""How a contract says which promise was broken, and becomes tests."""

from __future__ import annotations

from collections.abc import Callable
from inspect import isfunction
from typing import Any, TypeVar

C = TypeVar("C", bound=type)


class BrokenPromise(AssertionError):
    """A component does not do what its contract says.

    Args:
        promise: Short name of the promise ("budget").
        text: What was seen.

    Attributes:
        promise: See above.
    """

    def __init__(self, promise: str, text: str) -> None:
        super().__init__(f"broken promise {promise!r}: {text}")
        self.promise = promise


def expect(condition: bool, promise: str, text: str) -> None:
    """Raise `BrokenPromise` unless `condition` holds."""
    if not condition:
        raise BrokenPromise(promise, text)


def promises_of(checks: type) -> tuple[str, ...]:
    """Return what a class of checks looks at: the names of its public methods, in their order."""
    methods = (name for name, item in vars(checks).items() if isfunction(item))
    return tuple(name for name in methods if not name.startswith("_"))


def a_test_for_each(checks: type) -> Callable[[C], C]:
    """Give a contract a pytest test for each promise, `test_<promise>`, by its method `keep`.

    Args:
        checks: The class whose methods say what is promised.
    """

    def test_of(promise: str) -> Callable[[Any], None]:
        def test(contract: Any) -> None:
            contract.keep(promise)

        test.__doc__ = getattr(checks, promise).__doc__
        return test

    def add(contract: C) -> C:
        for promise in promises_of(checks):
            setattr(contract, f"test_{promise}", test_of(promise))
        return contract

    return add
