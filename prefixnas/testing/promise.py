"""How a contract says which promise was broken, and becomes tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


def a_test_for_each(promises: Sequence[str], checks: type) -> Callable[[C], C]:
    """Give a contract a pytest test for each promise, `test_<promise>`.

    Args:
        promises: Names of methods of `checks`, which the contract's method `keep` is called with.
        checks: The class whose methods say what is promised.
    """

    def test_of(promise: str) -> Callable[[Any], None]:
        def test(contract: Any) -> None:
            contract.keep(promise)

        test.__doc__ = getattr(checks, promise).__doc__
        return test

    def add(contract: C) -> C:
        for promise in promises:
            setattr(contract, f"test_{promise}", test_of(promise))
        return contract

    return add
