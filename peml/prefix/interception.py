"""A function of ours in place of the attention function of some modules of a model.

transformers' attention modules ask `AttentionInterface` for the function that their configuration
names. A module that is intercepted gets a view of its configuration which names ours; the model's
configuration stays as it is, and with it everything else that reads it: masks, flash attention's
checks, generation, saving. While our function runs, the module has its own configuration back, so
that the function which it would have called finds nothing changed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel

NAME = "peml"
"""The name in transformers under which an intercepted module finds our function."""

Attention = Callable[..., tuple[Tensor, Tensor | None]]
"""`(module, query, key, value, attention_mask, **kwargs)` to outputs `[batch, q, heads, head_dim]`
and, of some functions, weights. query: `[batch, heads, q, head_dim]`, key and value:
`[batch, kv_heads, kv, head_dim]`."""

DENSE = ("sdpa", "eager")
"""Implementations whose masks are tensors with an entry per query and key."""


class View:
    """A module's configuration, except for the name of its attention function.

    Args:
        own: The configuration.
        function: What the module calls instead of its own attention function.
    """

    _attn_implementation = NAME

    def __init__(self, own: Any, function: Attention) -> None:
        self.own = own
        self.function = function

    def __getattr__(self, name: str) -> Any:
        if name == "own" or name.startswith("__"):  # asked for by copies that are not filled yet
            raise AttributeError(name)
        return getattr(self.own, name)


def _intercepted(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    view: View = module.__dict__["config"]
    module.__dict__["config"] = view.own
    try:
        return view.function(module, *args, **kwargs)
    finally:
        module.__dict__["config"] = view


AttentionInterface.register(NAME, _intercepted)


def own_attention(module: nn.Module) -> Attention:
    """Return the function that a module calls where nothing intercepts it.

    Raises:
        KeyError: The module's file does not say what its eager attention is.
    """
    for kind in type(module).__mro__:
        names = vars(sys.modules[kind.__module__])
        if "ALL_ATTENTION_FUNCTIONS" in names:
            break
    name = module.__dict__["config"]._attn_implementation
    eager = names["eager_attention_forward"] if name == "eager" else None
    function: Attention = names["ALL_ATTENTION_FUNCTIONS"].get_interface(name, eager)
    return function


def can_be_intercepted(module: nn.Module) -> bool:
    """Tell whether a module has a configuration of its own to name an attention function in."""
    config = module.__dict__.get("config")
    return not isinstance(module, PreTrainedModel) and isinstance(config, PreTrainedConfig | View)


def intercept(modules: Iterable[nn.Module], function: Attention) -> Callable[[], None]:
    """Let modules call a function of ours; return what makes them call their own again.

    Interceptions nest: the one that came last is called first, and `own_attention` gives it the
    one before. They may be undone in any order.
    """
    views = {module: View(module.__dict__["config"], function) for module in modules}
    for module, view in views.items():
        module.__dict__["config"] = view
    return partial(_give_back, views)  # a copy of the model and of this undoes it in the copy


def _give_back(views: Mapping[nn.Module, View]) -> None:
    for module, view in views.items():
        outer, config = None, module.__dict__["config"]
        while isinstance(config, View) and config is not view:
            outer, config = config, config.own
        if outer is None:
            module.__dict__["config"] = view.own
        elif config is view:
            outer.own = view.own


def interceptions(module: nn.Module) -> Iterator[Attention]:
    """Yield the functions of ours that a module calls, the one that comes first first."""
    config = module.__dict__.get("config")
    while isinstance(config, View):
        yield config.function
        config = config.own


def use_dense_masks(model: PreTrainedModel) -> Callable[[], None]:
    """Switch flash, flex and other attention to PyTorch's SDPA; return what switches back.

    A model that cannot use SDPA (soft-capping, sinks) has eager attention already.
    """
    configs = {
        id(module.config): module.config
        for module in model.modules()
        if isinstance(module, PreTrainedModel)
    }
    before = [(config, config._attn_implementation) for config in configs.values()]
    for config, name in before:
        if name not in DENSE:
            config._attn_implementation = "sdpa"
    return partial(_name_again, before)


def _name_again(before: Sequence[tuple[Any, str]]) -> None:
    for config, name in before:
        config._attn_implementation = name
