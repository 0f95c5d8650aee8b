"""The contract that a method must keep, for its author's tests.

    class TestMine(MethodContract):
        def method(self) -> Method:
            return Mine()

    check_method(Mine)

A broken promise raises `prefixnas.testing.BrokenPromise`, which names it. It may import every room
but `commands`.
"""

from peml.testing.methods import MethodCheck, MethodContract, check_method
from peml.testing.models import FAMILIES, tiny_model

__all__ = ["FAMILIES", "MethodCheck", "MethodContract", "check_method", "tiny_model"]
