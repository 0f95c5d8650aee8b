"""The method that a configuration asks for."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from peml.methods.method import METHODS, Method
from peml.objective.options import LanguageModelOptions
from prefixnas.base.errors import UserError
from prefixnas.base.options import make


def method_of(config: LanguageModelOptions) -> Method:
    """Return the method that a configuration names, set as it says.

    Raises:
        UserError: Unknown, or the configuration lacks its options or has those of another.
    """
    cls: Any = METHODS.get(config.method, "key 'method'")
    needed = {entry.name for entry in fields(cls)}
    common = {entry.name for entry in fields(LanguageModelOptions)}
    if needed != {entry.name for entry in fields(config)} - common:
        raise UserError(
            f"key 'method': {config.method!r} has options of its own: make the configuration by "
            f"LanguageModelConfig.of({config.method!r})"
        )
    made: Method = make(cls, vars(config))
    return made
