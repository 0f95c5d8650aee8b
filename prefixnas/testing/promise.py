"""How a contract says which promise was broken."""

from __future__ import annotations


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
