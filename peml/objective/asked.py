"""What a configuration asks for: the method, and attention that goes with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from peml.methods.method import METHODS, Method
from peml.model.model import LanguageModel
from peml.objective.options import LanguageModelOptions
from peml.prefix.concat import Concat
from peml.prefix.interception import DENSE
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


def check_attention(
    config: LanguageModelOptions, lm: LanguageModel, method: Method, kinds: Sequence[str]
) -> None:
    """Refuse an attention function that was asked for and does not go with what reads it.

    Args:
        config: The options.
        lm: The model, with the method attached.
        method: The method.
        kinds: The kinds of prefix attention that there may be.

    Raises:
        UserError: Names what needs another function, which it put in its place or would put there.
    """
    asked = config.attn_implementation
    if asked is None or asked in DENSE:
        return
    by = f"a prefix with {Concat.name!r} attention" if Concat.name in kinds else None
    if by is None and lm.model.config._attn_implementation != asked:
        by = f"method {method.label!r}"
    if by is not None:
        raise UserError(
            f"key 'attn_implementation': {by} puts keys into the softmax over the text, which "
            f"needs a mask with an entry for every two tokens, and {asked!r} has none; take 'sdpa' "
            "or 'eager'"
        )
