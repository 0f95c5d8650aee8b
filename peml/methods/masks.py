"""Which positions of a pass are real tokens, for what sums over positions."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from peml.model.forward import arguments_of

if TYPE_CHECKING:
    from peml.model.model import LanguageModel


class Masks:
    """The masks of the pass that a model is in, by layer.

    An encoder-decoder reads two texts. Its decoder's layers read the answer, except for keys and
    values of cross-attention, which are made of what the encoder returned.

    Args:
        lm: The model, which gets hooks.

    Attributes:
        undo: What takes the hooks out.
    """

    def __init__(self, lm: LanguageModel) -> None:
        model: Any = lm.model
        self._lm = lm
        self._text: Tensor | None = None
        self._answer: Tensor | None = None
        self._encoded: Callable[[], Tensor | None] = lambda: None
        self._decoder: set[nn.Module] = set()
        hooks = [model.register_forward_pre_hook(self._see, with_kwargs=True)]
        if lm.family == "encoder-decoder":
            decoder = model.get_decoder()
            self._decoder = set(decoder.modules())
            hooks.append(decoder.register_forward_pre_hook(self._see_encoded, with_kwargs=True))
        self.undo: list[Callable[[], None]] = [hook.remove for hook in hooks]

    def of(self, layer: nn.Module, x: Tensor) -> Tensor | None:
        """Return 1 for the real tokens of what a layer reads; None: all are, or none is known.

        Args:
            layer: A module of the model.
            x: Its input `[b, t, in]`.
        """
        answers = layer in self._decoder and x is not self._encoded()
        mask = self._answer if answers else self._text
        return mask if mask is not None and mask.shape == x.shape[:2] else None

    def _see(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = arguments_of(model, args, kwargs)
        self._text = given.get("attention_mask")
        self._answer = answer_mask(self._lm, given) if self._decoder else None

    def _see_encoded(self, decoder: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        encoded = arguments_of(decoder, args, kwargs).get("encoder_hidden_states")
        self._encoded = (lambda: None) if encoded is None else weakref.ref(encoded)


def answer_mask(lm: LanguageModel, given: Mapping[str, Any]) -> Tensor | None:
    """Return 1 for the real tokens of what an encoder-decoder's decoder reads, `[b, a]`.

    Args:
        lm: The model.
        given: The arguments of the pass; without a mask of the decoder's, padding is told by its
            token.
    """
    mask: Tensor | None = given.get("decoder_attention_mask")
    ids: Tensor | None = given.get("decoder_input_ids")
    if mask is not None or ids is None:
        return mask
    real: Tensor = ids != lm.model.config.pad_token_id
    real[:, 0] = True  # where answers start, which may be the same token
    return real
